"""500 recipes, shipped ones and small own ones, with values, keys and YAML changed: refused, or
taken as written.

As written: every value in the file, read by another YAML reader, is in the recipe that
came of it. That a value is another one than before is not lorakit's to know: another learning rate
is another recipe."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from lorakit.errors import InputError
from lorakit.recipe.load import build
from lorakit.recipe.shipped import find, names
from lorakit.recipe.source import read_yaml
from lorakit.runs.folder import folder_of
from lorakit.runs.identity import what_matters
from lorakit.verbs.check import check
from tests.hostile import as_json, damaged, mutated
from tests.nightly.plan import Silent, Tried
from tests.verbs.test_hostile_recipes import LINES

OWN = (
    """\
task: {name: classification, train: "lorakit:quickstart/train.jsonl",
  validation: "lorakit:quickstart/validation.jsonl", classes: [negative, positive]}
model: {name: "lorakit:tiny_encoder"}
method: {name: lora, targets: [query, value], r: 8, alpha: 16, dropout: 0.1}
data: {max_length: 64, limit: {train: 64, validation: 32}}
train: {epochs: 2, global_batch_size: 16, learning_rate: 5e-3, warmup: 0.06,
  checkpoint: {every_steps: 2, minutes: null}}
evaluate: {every_steps: 2, keep: last}
seeds: [0, 1]
""",
    """\
task: {name: text, train: "lorakit:quickstart_generate/train.jsonl", prompt: "{prompt}",
  completion: completion, validation: "lorakit:quickstart_generate/validation.jsonl", separator:
  "\\n", metrics: [bleu, exact_match]}
model: {name: "lorakit:tiny_gpt2", dtype: fp32}
method: {name: lora, targets: all-linear, r: 4}
data: {max_length: 96, limit: {train: 32, validation: 8}}
train: {max_steps: 4, global_batch_size: 8, learning_rate: 1e-3, schedule: cosine}
decode: {max_new_tokens: 8, beams: 2}
""",
)
YES_AND_NO = {
    "yes": True,
    "on": True,
    "true": True,
    "no": False,
    "off": False,
    "false": False,
    "y": True,
    "n": False,
}
VALUES = (
    0,
    1,
    2,
    -1,
    3.5,
    1e-4,
    "4e-4",
    1e300,
    2**31,
    10**12,
    True,
    None,
    "",
    "lora",
    "full",
    "bf16",
    [],
    {},
    "all",
)


def mutant(random: Random) -> bytes:
    """Values, keys, lines or bytes of a recipe changed."""
    name = random.choice((*names(), *OWN, *OWN, *OWN))
    text = name if name in OWN else find(name).read_text(encoding="utf-8")
    act = random.randrange(12) - 2
    if act < 3:
        return changed(yaml.safe_load(text), random)
    if act < 5:
        data = mutated(
            read_yaml(find(name))[0] if name not in OWN else yaml.safe_load(text), random
        )
        if act == 3:
            return as_json(data, random)
        return yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass")
    if act < 7:
        lines = text.splitlines(keepends=True)
        lines.insert(random.randrange(len(lines) + 1), random.choice(LINES) + "\n")
        return "".join(lines).encode()
    return damaged(text.encode(), random)


def changed(data: Any, random: Random) -> bytes:
    """A plausible value in one place: what a user might try."""
    part = random.choice([key for key, value in data.items() if isinstance(value, dict)])
    key = random.choice(list(data[part]))
    value = data[part][key]
    if isinstance(value, (int, float)) and random.random() < 0.7:
        data[part][key] = type(value)(value * random.choice((0, 0.5, 2, 3, 10, -1, 1e6)))
    else:
        data[part][key] = random.choice(VALUES)
    return yaml.safe_dump(data, sort_keys=False).encode()


def refuse_lost(data: bytes, plain: dict[str, Any]) -> None:
    """Silent: a value that the file gives is not in the recipe, or another one is."""
    try:
        written = yaml.safe_load(data.decode("utf-8-sig"))
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ):  # of YAML 1.1, which has dates and octal numbers
        return
    if not isinstance(written, dict):
        raise Silent("a file that holds no mapping was taken")
    for path, value in leaves({key: item for key, item in written.items() if key != "extends"}):
        at: Any = plain
        for key in path:
            at = (
                at.get(key)
                if isinstance(at, dict)
                else {"name": at}.get(key)
                if at is not None
                else None
            )
        if not same(value, at):
            raise Silent(
                f"{'.'.join(path[:2])} of the file is not in the recipe",
                repr(value),
                "is",
                repr(at),
            )


def leaves(data: Any, path: tuple[str, ...] = ()) -> Any:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from leaves(value, (*path, str(key)))
    else:
        yield path, data


def same(written: Any, held: Any) -> bool:
    if isinstance(held, dict) and not isinstance(written, dict):
        return same(written, held.get("name"))  # method: lora
    if written is None or written == "":
        return held in (None, "", [])
    if isinstance(held, list) or isinstance(written, list):
        one, two = (value if isinstance(value, list) else [value] for value in (written, held))
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    if isinstance(written, dict):
        return isinstance(held, dict) and all(
            same(value, held.get(str(key))) for key, value in written.items()
        )
    if isinstance(written, bool) or isinstance(held, bool):
        return YES_AND_NO.get(str(written).lower()) is YES_AND_NO.get(str(held).lower(), held)
    try:
        return float(written) == float(held)
    except (TypeError, ValueError, OverflowError):
        return str(written).split() == str(held).split()  # a folded line has other white space


def test_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mutant.yaml"
    folders: dict[Path, Any] = {}
    with Tried("recipes", seconds=20) as tried:
        for name, random in tried.cases(500):
            data = mutant(random)
            file.write_bytes(data)
            with tried.case(name, "taken, as written"):
                loaded = build(file)
                plain = loaded.recipe.plain()
                again = tmp_path / "again.yaml"
                again.write_text(
                    yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8"
                )
                if build(again).recipe != loaded.recipe:
                    raise Silent("the resolved recipe reads as another one")
                refuse_lost(data, plain)
                mine = what_matters(plain)
                if folders.setdefault(folder_of(loaded, tmp_path), mine) != mine:
                    raise Silent("two recipes have one run folder")
                check(loaded.recipe)
        tried.row.outcomes["different run folders"] = len(folders)
    assert {path.name for path in tmp_path.iterdir()} <= {"mutant.yaml", "again.yaml"}, (
        "a file was written"
    )
    assert issubclass(InputError, ValueError)
