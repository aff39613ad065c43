"""kill -9, at random moments and before single operations on files; the same command then ends in
the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.nightly.child import Child
from tests.nightly.disturbed import Command, digests, killed_again_and_again, killed_at
from tests.nightly.plan import Tried, count, random_of
from tests.verbs.test_crash import RECIPE, whole

TRAIN = [
    *RECIPE,
    "train.epochs=2",
    "evaluate.every_steps=8",
    "train.checkpoint={every_steps: 3, keep_last: 2}",
]
WRITING = [
    "quickstart_generate",
    "data.limit={train: 32, validation: 48}",
    "train.global_batch_size=8",
    "train.max_steps=3",
    "evaluate.batch_size=4",
    "evaluate.every=9",
    "decode.max_new_tokens=32",
    "~expect",
]
ROWS = 2200
"""More than are tokenised without being kept."""


def trained(folder: Path) -> Any:
    """None: not whole."""
    if not list(folder.glob("runs/*/result.json")) or not list(folder.glob("runs/*/report.html")):
        return None
    return whole(folder / "runs")


def training(*more: str) -> Command:
    return Command(
        lambda folder: ["train", *TRAIN, *more, "--cpu", "--runs", folder / "runs"],
        trained,
        "checks passed",
    )


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Command:
    command = training()
    command.learn(tmp_path_factory.mktemp("train") / "whole")
    return command


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that writes texts."""
    folder = tmp_path_factory.mktemp("written")
    done = Child(["train", *WRITING, "--cpu", "--runs", "runs"], folder).begin().end()
    assert done.code == 0, done.err
    return next((folder / "runs").glob("quick*"))


def at_random_moments(kind: str, full: int, command: Command, folder: Path, most: int) -> None:
    """`most`: kills of one and the same run before it is left in peace."""
    with Tried(kind) as tried:
        kills, number = 0, 0
        while kills < count(full):
            random = random_of(kind, number)
            times = min(random.randrange(1, most + 1), count(full) - kills)
            name = f"{kind}:{number}"
            kills += killed_again_and_again(
                tried, command, folder / str(number), random, times, name
            )
            number += 1
            assert number < 50 * full, "no kill lands"


def at_operations(
    kind: str, full: int, command: Command, folder: Path, wanted: Callable[[str], bool]
) -> None:
    """Before single operations, of those that are wanted; each once, where there are as many."""
    numbers = [number for number, what in enumerate(command.operations, 1) if wanted(what)]
    chosen = Random(str(random_of(kind).random())).sample(numbers, min(len(numbers), count(full)))
    with Tried(f"{kind} ({len(numbers)} operations)") as tried:
        for number in sorted(chosen):
            what = command.operations[number - 1]
            killed_at(
                tried, command, folder / str(number), number, f"before operation {number}, {what}"
            )


def of_saving(what: str) -> bool:
    return "checkpoints" in what or "adapter" in what or "/" not in what


def test_in_training(train: Command, tmp_path: Path) -> None:
    at_random_moments("kill -9 in training", 30, train, tmp_path, most=5)


def test_in_saving(train: Command, tmp_path: Path) -> None:
    at_operations("kill -9 in saving", 10, train, tmp_path, of_saving)


def test_at_every_operation(train: Command, tmp_path: Path) -> None:
    at_operations("kill -9 before an operation of training", 40, train, tmp_path, lambda what: True)


def test_in_merging(train: Command, tmp_path: Path) -> None:
    run = _run_of(train, tmp_path / "run")
    command = Command(
        lambda folder: ["merge", run, "--to", "merged", "--examples", 16],
        lambda folder: digests(folder / "merged"),
        "merged in fp32",
        again=(0, 2),
    )
    command.learn(tmp_path / "whole")
    at_operations("kill -9 in merging", 5, command, tmp_path / "operations", lambda what: True)
    at_random_moments("kill -9 in merging, at any time", 5, command, tmp_path / "moments", most=2)


def _run_of(command: Command, folder: Path) -> Path:
    done = command.begin(folder).end()
    assert done.code == 0, done.err
    return next((folder / "runs").glob("quick*"))


def test_in_generating(written: Path, tmp_path: Path) -> None:
    evaluate = Command(
        lambda folder: ["eval", written, "--out", "out", "--json"],
        lambda folder: _answers(folder / "out"),
        "written:",
    )
    evaluate.learn(tmp_path / "whole")
    at_operations(
        "kill -9 in eval of texts", 3, evaluate, tmp_path / "operations", lambda what: True
    )
    at_random_moments(
        "kill -9 in eval of texts, at any time", 4, evaluate, tmp_path / "moments", most=3
    )
    line = [
        "generate",
        written,
        "--split",
        "validation",
        "--limit",
        24,
        "--out",
        "out/texts.jsonl",
        "--json",
    ]
    generate = Command(lambda folder: line, lambda folder: _answers(folder / "out"), '"answers"')
    generate.learn(tmp_path / "generate")
    at_random_moments("kill -9 in generate, at any time", 3, generate, tmp_path / "texts", most=2)


def _answers(folder: Path) -> Any:
    """None: a file of answers is not there, or is said to be a part."""
    found = digests(folder)
    return found if found and not any("partial" in name for name in found) else None


def test_in_preparing(tmp_path: Path) -> None:
    rows = [{"text": f"it was {i}", "label": "ab"[i % 2]} for i in range(ROWS)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"task: {{name: classification, train: {data}, validation: {data}}}\n"
        "model: {name: 'lorakit:tiny_encoder'}\nmethod: {name: lora, r: 2}\n"
        "data: {max_length: 32}\ntrain: {epochs: 1, global_batch_size: 8}\n"
    )
    command = Command(
        lambda folder: ["prepare", recipe],
        lambda folder: digests(folder / "cache", "*.safetensors"),
        "everything is available",
        environ=lambda folder: {"LORAKIT_CACHE": str(folder / "cache")},
    )
    command.learn(tmp_path / "whole")
    at_operations("kill -9 in preparing", 6, command, tmp_path / "operations", lambda what: True)
    at_random_moments("kill -9 in preparing, at any time", 4, command, tmp_path / "moments", most=2)
