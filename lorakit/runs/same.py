"""Checks that a run folder belongs to the recipe and the examples that are given now.

A run is resumed, or taken as it is, only after its recipe and its data were compared with what was
recorded when its seeds were trained. `inputs` does the same for the files of the base model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorakit.errors import InputError, LorakitError
from lorakit.recipe.load import build
from lorakit.recipe.schema import Recipe
from lorakit.runs.folder import begun, runs_named, stem_of
from lorakit.runs.identity import differences, what_matters
from lorakit.runs.result import write_whole
from lorakit.tasks import Example

DATA_FILE = "data.json"
ADVICE = "--restart trains them again; another folder (--runs DIR) keeps them."


def same_recipe(run: Path, recipe: Recipe) -> None:
    """InputError, with the differences: the run's seeds were trained with another recipe."""
    if not begun(run) and not (run / "result.json").is_file():
        return
    try:
        before = what_matters(build(run / "recipe.yaml").recipe.plain())
    except LorakitError as error:
        raise InputError(
            f"{run} holds trained seeds, but the recipe that they were trained with cannot be "
            f"read: {error}. {ADVICE}"
        ) from error
    if changes := differences(before, what_matters(recipe.plain())):
        raise InputError(f"{run} was trained with another recipe ({'; '.join(changes)}). {ADVICE}")


def recorded_recipe(run: Path) -> dict[str, Any] | None:
    """The recipe of a run as plain data; None where this version cannot read it."""
    try:
        return build(run / "recipe.yaml").recipe.plain()
    except LorakitError:
        return None


def unfinished_others(run: Path, recipe: Recipe) -> dict[Path, list[str]]:
    """Stopped runs of the same recipe name next to `run` -> how their recipes differ."""
    values = what_matters(recipe.plain())
    found = {}
    for other in runs_named(run.parent, stem_of(run)):
        if other == run or (other / "result.json").is_file():
            continue
        if not any(other.glob("seed*/checkpoints/step-*")):
            continue
        before = recorded_recipe(other)
        if before is not None:
            found[other] = differences(what_matters(before), values)
    return found


def refuse_other_data(run: Path, splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """What could not be compared: a text for each.

    InputError, with the differences: the run's seeds were trained on other examples.
    """
    file = run / DATA_FILE
    if not file.is_file():
        return ["the data: no digests were recorded"]
    before = _read_json(file)
    if not isinstance(before, dict):
        raise InputError(
            f"{file} is damaged, so the data that the seeds were trained on is not known. {ADVICE}"
        )
    changes = []
    found = digests_of(splits)
    for name, now in found.items():
        if before.get(name) != now:
            changes.append(_change(name, before.get(name), now))
    if gone := sorted(set(before) - set(found)):
        changes.append(f"{gone[0]} is not scored any more")
    if changes:
        raise InputError(
            f"{run} holds seeds that were trained on other data ({'; '.join(changes)}). {ADVICE}"
        )
    return []


def record_data(run: Path, splits: Mapping[str, Sequence[Example]]) -> None:
    """Write the digests of the run's examples."""
    write_whole(run / DATA_FILE, json.dumps(digests_of(splits), indent=2) + "\n")


def digests_of(splits: Mapping[str, Sequence[Example]]) -> dict[str, dict[str, Any]]:
    """Split -> the number of its examples and a digest of them."""
    return {name: {"examples": len(rows), "digest": _digest(rows)} for name, rows in splits.items()}


def _digest(examples: Sequence[Example]) -> str:
    """Digest of everything that is learnt and asked; the paths of the files do not matter."""
    digest = hashlib.blake2b(digest_size=16)
    for e in examples:
        turns = [(turn.role, turn.text) for turn in e.turns]
        content = (e.id, e.text, e.pair, e.target, e.references, e.group, turns)
        digest.update(repr(content).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _change(name: str, then: Any, now: dict[str, Any]) -> str:
    count = then.get("examples") if isinstance(then, dict) else 0
    if count == now["examples"]:
        return f"{name}: the same number of examples, with other texts or answers"
    return f"{name}: {count} examples then, {now['examples']} now"
