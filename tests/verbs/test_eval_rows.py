"""`lorakit eval` of runs whose rows are dropped, and of runs with several seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

WORDS = ("good film", "bad film")
LONG = {"text": "good " * 200, "label": "positive"}


def _rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path) -> Path:
    rows = [{"text": WORDS[i % 2], "label": ("positive", "negative")[i % 2]} for i in range(24)]
    _rows(tmp_path / "train.jsonl", rows)
    _rows(tmp_path / "validation.jsonl", [LONG] * 10 + rows)
    return tmp_path


def _train(lorakit_cli, files: Path, *values: object) -> Path:
    named = [f"task.{split}={files / split}.jsonl" for split in ("train", "validation")]
    small = ["train.max_steps=2", "train.global_batch_size=8", "~expect", "--runs", files / "runs"]
    done = lorakit_cli("train", *values, *named, *small, "--json")
    assert done.code == 0, done.err
    return Path(done.json["run"])


def test_rows_that_are_dropped_are_not_counted(lorakit_cli, files):
    """The first ones are too long, on which the adapter's effect would be measured."""
    data = ["data={max_length: 32, too_long: drop}", "task.metrics=[accuracy]"]
    run = _train(lorakit_cli, files, "quickstart", *data)
    done = lorakit_cli("eval", run, "--json")
    assert done.code == 0, done.err
    assert done.json["rows"] == {"validation": 24}
    assert done.json["adapter_effect"] > 0


def test_answers_that_are_drawn_are_those_of_the_training(lorakit_cli, files):
    """Each seed of a run draws with its own."""
    columns = ["task.prompt=text", "task.completion=label"]
    values = ["quickstart_generate", *columns, "decode={sample: true, max_new_tokens: 8}"]
    rows = [{"text": f"{word} {i}", "label": word} for i, word in enumerate(WORDS * 4)]
    _rows(files / "validation.jsonl", rows)
    run = _train(lorakit_cli, files, *values, "seeds=[0, 3]")
    out = files / "out"
    done = lorakit_cli("eval", run, "--seed", "3", "--out", out)
    assert done.code == 0, done.err
    trained = (run / "seed3/predictions/validation.jsonl").read_text().splitlines()
    again = (out / "validation.jsonl").read_text().splitlines()
    assert [json.loads(line)["output"] for line in again] == [
        json.loads(line)["output"] for line in trained
    ]
