"""Runs whose answers are sets of labels, labels of words or spans, and runs that score nothing."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lorakit.runs.result import Result
from tests.tiers import unit_or_slow
from tests.verbs.test_processes import assert_same, train

REST = (
    "model: {name: 'lorakit:tiny_encoder'}\nmethod: {name: lora, targets: [query, value], r: 2}\n"
    "data: {max_length: 48}\ntrain: {max_steps: 2, global_batch_size: 8, warmup: 0.0}\n"
)
ROWS: dict[str, list[dict[str, Any]]] = {
    "multilabel": [
        {"text": f"good {i}", "labels": [["a"], ["a", "b"], []][i % 3]} for i in range(24)
    ],
    "token_classification": [
        {"tokens": ["Anna", "saw", "New", "York", str(i)], "tags": "B-P O B-L I-L O"}
        for i in range(24)
    ],
    "question_answering": [
        {"question": "where ?", "context": f"it is {i} " * 20 + "here", "answers": "here"}
        for i in range(24)
    ],
}
HEADS = {"multilabel": "SEQ_CLS", "token_classification": "TOKEN_CLS"}
HEADS["question_answering"] = "QUESTION_ANS"


@pytest.fixture
def recipe(tmp_path):
    def make(task: str, rows: list[dict[str, Any]], more: str = "validation: 0.25") -> Path:
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = tmp_path / "mine.yaml"
        path.write_text(f"task: {{name: {task}, train: '{tmp_path}/a.jsonl', {more}}}\n{REST}")
        return path

    return make


@pytest.mark.parametrize("task", unit_or_slow(list(ROWS), ["token_classification"]))
def test_a_run_is_proven_evaluated_and_merged(recipe, lorakit_cli, tmp_path, task):
    path = recipe(task, ROWS[task])
    done = lorakit_cli("train", path, "--runs", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    run = Path(done.json["run"])
    result = Result.read(run / "result.json")
    assert {check.name for check in result.seeds[0].checks} == {"alive", "reload", "merge"}
    config = json.loads((run / "seed0" / "adapter" / "adapter_config.json").read_text())
    assert config["task_type"] == HEADS[task]
    again = lorakit_cli("eval", run, "--json")
    assert again.code == 0, again.err
    assert again.json["scores"]["validation"] == pytest.approx(result.seeds[0].scores["validation"])
    merged = lorakit_cli("merge", run, "--to", tmp_path / "merged")
    assert merged.code == 0, merged.err


@pytest.mark.slow
@pytest.mark.parametrize("task", list(ROWS))
def test_two_processes_give_what_one_gives(recipe, tmp_path, task):
    path = str(recipe(task, ROWS[task], "validation: 0.3"))
    one, two = (train([path, "train.max_steps=4"], tmp_path / str(n), n) for n in (1, 2))
    # a constant on all positions changes no span: the gradient of that bias is rounding alone
    assert_same(one, two, without="qa_outputs.bias")
    scores = [Result.read(seed.parent / "result.json").seeds[0].scores for seed in (one, two)]
    assert scores[0] == scores[1]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("task", list(ROWS))
def test_a_quantized_base(recipe, lorakit_cli, tmp_path, task, kind):
    path = recipe(task, ROWS[task])
    options = (f"model.quantize={kind}", "--runs", tmp_path / "runs", "--json")
    done = lorakit_cli("train", path, *options)
    assert done.code == 0, done.err
    run = Path(done.json["run"])
    (seed,) = Result.read(run / "result.json").seeds
    assert {check.name for check in seed.checks} == {"alive", "reload", "merge"}
    again = lorakit_cli("eval", run, "--json")
    assert again.json["scores"]["validation"] == pytest.approx(seed.scores["validation"])
    merged = lorakit_cli("merge", run, "--to", tmp_path / "merged", "--json")
    assert merged.code == 0, merged.err
    assert merged.json["max_logit_difference"] < 1e-4


def test_a_run_without_validation_keeps_the_last_state(recipe, lorakit_cli, tmp_path):
    rows = [{"text": f"x {i}", "label": "ab"[i % 2]} for i in range(16)]
    path = recipe("classification", rows, "validation: none")
    file = tmp_path / "a.jsonl"
    file.write_text(file.read_text(), encoding="utf-16")
    done = lorakit_cli("train", path, "--runs", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    run = Path(done.json["run"])
    result = Result.read(run / "result.json")
    assert result.splits == ()
    assert result.seeds[0].steps == 2
    assert "not scored" in {note.kind for note in result.notes}
    (found,) = (note.text for note in result.notes if note.kind == "data")
    assert found == f"{file}: read as utf-16"
    assert found in (run / "report.html").read_text()
    assert lorakit_cli("eval", run).code == 2
    assert lorakit_cli("eval", run, "--split", "train").code == 0
    refused = lorakit_cli("check", path, "evaluate.patience=1")
    assert refused.code == 2


@pytest.mark.slow
def test_one_predicted_label_is_reported(recipe, lorakit_cli, tmp_path):
    rows = [{"text": f"x {i}", "label": "a" if i % 8 else "b"} for i in range(64)]
    path = recipe("classification", rows)
    options = ("train.learning_rate=0.01", "train.max_steps=4", "train.class_weights={a: 50}")
    done = lorakit_cli("train", path, *options, "--runs", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    notes = Result.read(Path(done.json["run"]) / "result.json").notes
    assert "one label" in {note.kind for note in notes}


def test_check_shows_labels_and_weights(recipe, lorakit_cli):
    rows = [{"text": f"x {i}", "label": "a" if i % 4 else "b"} for i in range(40)]
    path = recipe("classification", rows)
    done = lorakit_cli("check", path, "train.class_weights=balanced", "--json")
    assert done.code == 0, done.err
    a, b = done.json["labels"]
    assert (a["label"], a["count"]) == ("a", {"train": 23, "validation": 7})
    assert (b["label"], b["count"]) == ("b", {"train": 7, "validation": 3})
    assert a["weight"] == pytest.approx(30 / (2 * 23))
    for wrong in ("train.class_weights={c: 2}", "train.class_weights=balance"):
        assert lorakit_cli("check", path, wrong).code == 2
