"""2,000 hostile recipes: a recipe that reloads to an equal one, or a refusal."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import yaml

from lorakit.recipe.load import LoadedRecipe, build
from lorakit.recipe.shipped import find, names
from lorakit.recipe.source import read_yaml
from tests.hostile import CANARY, CODE, Trial, as_json, damaged, each, mutated, tiers

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
LINES = (
    BOMB,
    f"x: !!python/object/apply:os.system ['touch {CANARY}']",
    f"x: !!python/object/new:os.system [touch {CANARY}]",
    "x: !!python/name:os.system",
    f'about: !!python/object/apply:eval ["{CODE}"]',
    "x: !!binary aGk=",
    "? [a, b]\n: 1",
    "about: a\nabout: b",
    "train: {epochs: 1}\ntrain: {epochs: 2}",
    "<<: {about: x}",
    "about: *unknown",
    "about: &a x",
    "extends: [mutant.yaml]",
    "extends: mutant",
    "extends: [other.yaml]",
    "extends: [../../../../../../etc/passwd]",
    "extends: [/etc/passwd, /dev/zero]",
    f"extends: [{'x' * 5000}]",
    "extends: {a: b}",
    'extends: ["\\0"]',
    "extends: ~",
    'about: "\\U00110000"',
    'about: "\\UFFFFFFFF"',
    'about: "\\ud800"',
    'about: "\\x00"',
    "%YAML 9.9\n---\nabout: x",
    "--- a\n--- b",
    "about: " + "1" * 60_000 + "x",
    "about: " + "1_" * 30_000,
    "about: " + "a" * 2_000_000,
    "about: " + "[" * 5000,
    "? " * 5000,
    "- " * 5000,
    "about: |\n " + "x\n " * 20_000,
    "\tabout: x",
    "about: 'x",
    "".join(f"k{i}: {i}\n" for i in range(20_000)),
    "train: {" + ", ".join(f"k{i}: 1" for i in range(10_000)) + "}",
    "seeds: [" + "1, " * 50_000 + "2]",
    "x: [" + "[], " * 50_000 + "]",
    "...",
    "\x07",
    "about: \x85\u2028x\u2029",
    "method: {name: " + "q" * 100_000 + "}",
    "task: {name: glue/../../x}",
    "model: {name: ../../../x}",
)
"""Put before, behind or between the lines of a recipe."""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "recipes" / "inner").mkdir(parents=True)
    (tmp_path / "recipes" / "other.yaml").write_text("extends: [mutant.yaml]\n")
    return tmp_path / "recipes"


def mutant(random: Random) -> bytes:
    path = find(random.choice(names()))
    text = path.read_text(encoding="utf-8")
    kind = random.randrange(10)
    if kind < 4:
        data = mutated(read_yaml(path)[0], random)
        if kind < 1:
            return as_json(data, random)  # JSON is YAML, but for what this subset does not take
        return yaml.safe_dump(data, allow_unicode=random.random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )
    if kind < 6:
        lines = text.splitlines(keepends=True)
        lines.insert(random.randrange(len(lines) + 1), random.choice(LINES) + "\n")
        return "".join(lines).encode()
    return damaged(text.encode(), random)


@tiers(60, 2000)
def test_hostile_recipes(folder, count):
    trial = Trial(folder)
    file = folder / "mutant.yaml"

    def right(loaded: LoadedRecipe) -> None:
        assert loaded.path == file
        again = folder / "again.yaml"
        again.write_text(
            yaml.safe_dump(loaded.recipe.plain(), sort_keys=False, allow_unicode=True),
            encoding="utf-8",
        )
        try:
            assert build(again).recipe == loaded.recipe
            assert all(origin.note is not None for origin in loaded.origins.values())
        finally:
            again.unlink()

    def one(random: Random) -> None:
        data = mutant(random)
        file.write_bytes(data)
        trial.read(data, lambda: build(file), right)

    each(count, trial, one)


@pytest.mark.parametrize("line", LINES, ids=lambda line: ascii(line[:40]))
@pytest.mark.parametrize(
    "form",
    [
        pytest.param("{line}", marks=pytest.mark.slow),
        pytest.param("{line}\n{recipe}", marks=pytest.mark.slow),
        "{recipe}\n{line}\n",
    ],
    ids=["alone", "before", "after"],
)
def test_each_hostile_line(folder, form, line):
    file = folder / "mutant.yaml"
    text = form.format(line=line, recipe=find("quickstart").read_text())
    file.write_bytes(text.encode())
    Trial(folder).read(text, lambda: build(file), lambda loaded: None)
    assert not list(folder.parent.rglob(f"{CANARY}*"))
