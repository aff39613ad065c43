"""What E2E, WebNLG and DART share: what is scored, and where files are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorakit.errors import DataError, DataUnavailable, RecipeError
from lorakit.tasks import Data, Example, Task, tasks
from lorakit.tasks._generation import triples_text
from lorakit.tasks._published import PublishedData
from lorakit.verbs.score import score_files

NAMES = {
    "e2e": {"bleu", "nist", "meteor", "rouge_l", "cider"},
    "webnlg": {"bleu", "meteor", "ter"},
    "dart": {"bleu", "meteor", "ter"},
}


@pytest.fixture(params=NAMES)
def task(request) -> Task:
    return tasks.get(request.param).model_validate({"name": request.param})


def test_splits(task):
    assert (task.train_split, task.eval_splits, task.final_splits, task.test_splits) == (
        "train",
        ("validation",),
        ("test",),
        (),
    )
    assert task.primary == "bleu"
    assert set(task.expected_rows()) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("output", "prediction"),
    [
        (" A pub .\n", "A pub ."),
        (" A pub .<|endoftext|> Another .", "A pub ."),
        (" A pub .\n\n More of it", "A pub ."),
        ("A pub .\nIt is cheap .\n\nMore", "A pub .\nIt is cheap ."),
        ("<|endoftext|>A pub", ""),
        ("\n\nA pub", ""),
        ("", ""),
    ],
)
def test_an_answer_ends_where_the_reference_decoder_ends_it(task, output, prediction):
    assert task.to_prediction(output) == prediction


def test_only_texts_are_answers(task, stub_suites):
    with pytest.raises(DataError, match=r"\[0.5\] is not a text"):
        task.to_prediction([0.5])
    with pytest.raises(DataError, match="test-3: no reference"):
        task.to_reference(Example("test-3", "a : b"))
    with pytest.raises(DataError, match="prediction 1: 5 is not a text"):
        task.score(["a", 5], [["a"], ["b"]])
    for wrong in ([], [1], None, {"a": 1}):
        with pytest.raises(DataError, match=r"reference 0: .*give a text, or a list"):
            task.score(["a"], [wrong])


def test_metrics_are_those_of_the_suite(task, stub_suites):
    scores = task.score(["a", "b"], [["x", "a"], "c"])
    assert scores == dict.fromkeys(NAMES[task.name], 50.0)


def test_files_of_predictions_are_scored_by_the_name_alone(task, stub_suites, write):
    predictions = write("p.jsonl", '{"prediction": "a"}\n{"prediction": "b"}\n')
    references = write("r.jsonl", '{"references": ["x", "a"]}\n{"reference": "b"}\n')
    found = score_files(task.name, Path(predictions), Path(references))
    assert (found.scores, found.n) == (dict.fromkeys(NAMES[task.name], 100.0), 2)


def test_limits_count_examples_and_keep_their_texts(e2e_folder):
    task = tasks.get("e2e")(name="e2e")  # type: ignore[call-arg]
    whole = task.read("validation", Data(path=str(e2e_folder)))
    assert task.read("validation", Data(path=str(e2e_folder), limit={"validation": 1})) == whole[:1]
    assert len(whole[0].references) == 3
    with pytest.raises(RecipeError, match=r"data.limit.tset: no such split; did you mean 'test'"):
        task.read("validation", Data(path=str(e2e_folder), limit={"tset": 1}))


def test_triples_are_joined_as_they_are():
    assert (
        triples_text([("A_b", "c", '"d | e"'), ("f", "g", "h : i")])
        == 'A_b : c : "d | e" | f : g : h : i'
    )


LAYOUTS = ({"train": "a.csv", "test": "b.csv"}, {"train": "a.json", "test": "b.json"})


PUBLISHED = PublishedData("hub/name", "Get it.", layouts=LAYOUTS, homes=("", "inner"))


def found(folder: Path, split: str) -> str:
    return str(PUBLISHED.file(str(folder), split).relative_to(folder))


def test_the_first_layout_that_is_there_counts_for_every_split(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.json.gz").touch()
    assert found(tmp_path, "test") == "inner/b.json.gz"
    (tmp_path / "inner" / "b.json").touch()
    assert found(tmp_path, "test") == "inner/b.json"
    (tmp_path / "a.json").touch()
    assert found(tmp_path, "train") == "a.json"
    (tmp_path / "a.csv").touch()
    assert found(tmp_path, "train") == "a.csv"
    with pytest.raises(DataError, match=rf"^{tmp_path}: no b.csv for the test split. Get it."):
        found(tmp_path, "test")


def test_a_folder_that_is_absent_or_holds_nothing_of_it(tmp_path):
    with pytest.raises(
        DataError,
        match=r"no folder .*away; give the one that holds a.csv, b.csv or a.json.* Get it.",
    ):
        found(tmp_path / "away", "test")
    (tmp_path / "c.csv").touch()
    with pytest.raises(DataError, match=r"a.csv, b.csv or a.json.* \(it holds: c.csv\). Get it."):
        found(tmp_path, "test")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach it"),
        ValueError("no cache"),
        RuntimeError("Dataset scripts ..."),
    ],
)
def test_no_network_says_what_to_do(task, monkeypatch, error):
    import datasets

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataUnavailable, match=r"data.path=FOLDER .*github.com"):
        task.read("train", Data())


def test_rows_of_is_for_scored_splits(task):
    with pytest.raises(DataError, match="outputs are scored on validation or test"):
        task.rows_of("train", Data(path="."))
    assert json.dumps(task.expected_rows())
