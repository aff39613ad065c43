from __future__ import annotations

import logging

import pytest
from pydantic import ValidationError

from lorakit.errors import DataError, RecipeError
from lorakit.tasks import Data, Head
from lorakit.tasks._glue import VARIANTS
from lorakit.tasks.glue import Glue

# the hub's config names; written out, so that a variant that gets lost is noticed
NAMES = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte"]


def glue(name: str) -> Glue:
    return Glue(name=f"glue/{name}")


def read(name: str, split: str, folder, **limit: int):
    return glue(name).read(split, Data(path=str(folder), limit=limit))


def test_the_eight_data_sets_of_the_paper():
    assert sorted(VARIANTS) == sorted(NAMES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("glue/mprc", "did you mean 'glue/mrpc'"),
        ("glue", "there are: glue/cola, glue/sst2"),
        ("glue/", "there are: glue/cola"),
        ("mrpc", "did you mean 'glue/mrpc'"),
        ("glue/wnli", "the paper leaves WNLI out"),
        ("glue/ax", "diagnostic set"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(ValidationError, match=message):
        Glue(name=name)


@pytest.mark.parametrize(
    ("name", "metrics", "primary"),
    [
        ("cola", {"matthews_correlation", "accuracy"}, "matthews_correlation"),
        ("sst2", {"accuracy"}, "accuracy"),
        ("mrpc", {"accuracy", "f1"}, "accuracy"),
        ("stsb", {"pearson", "spearman"}, "pearson"),
        ("qqp", {"accuracy", "f1"}, "accuracy"),
        ("mnli", {"accuracy"}, "accuracy"),
        ("qnli", {"accuracy"}, "accuracy"),
        ("rte", {"accuracy"}, "accuracy"),
    ],
)
def test_metrics_of_table_2(name, metrics, primary):
    task = glue(name)
    answers = [0, 1] if task.head is Head.CLASSIFICATION else [0.5, 1.5]
    assert task.primary == primary
    assert set(task.score(answers, answers)) == metrics


def test_splits():
    assert glue("rte").eval_splits == ("validation",)
    assert glue("rte").test_splits == ("test",)
    assert glue("mnli").eval_splits == ("validation_matched", "validation_mismatched")
    assert glue("mnli").test_splits == ("test_matched", "test_mismatched")
    assert glue("stsb").head is Head.REGRESSION
    assert glue("mnli").labels == ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("name", "text", "pair", "targets"),
    [
        ("cola", "The dog barked.", None, [1, 0, 1]),
        ("sst2", "a good film ", None, [1, 0, 1]),
        ("mrpc", 'He said " yes .', "Yes , he said .", [1, 0, 1]),
        ("stsb", "A dog runs.", "A dog runs 0.", [5.0, 0.0, 2.25]),
        ("qqp", 'Is ""this"" one?', "This one?", [1, 0, 1]),
        ("mnli", "She left the room.", "Someone left 0.", [0, 1, 2]),
        ("qnli", 'Is "that so?', 'It is "so" 0.', [0, 1, 0]),
        ("rte", 'Is "that so?', 'It is "so" 0.', [0, 1, 0]),
    ],
)
def test_train_rows_of_the_official_files(glue_folder, name, text, pair, targets):
    examples = read(name, "train", glue_folder)
    assert (examples[0].text, examples[0].pair) == (text, pair)
    assert [example.target for example in examples] == targets
    assert [example.id for example in examples] == ["train-0", "train-1", "train-2"]


@pytest.mark.parametrize("name", NAMES)
def test_every_split_reads_and_test_answers_are_hidden(glue_folder, name):
    task = glue(name)
    for split in (*task.eval_splits, *task.test_splits):
        examples = read(name, split, glue_folder)
        assert [example.id for example in examples] == [f"{split}-{i}" for i in range(3)]
        assert all((example.target is None) == (split in task.test_splits) for example in examples)
    with pytest.raises(DataError, match=r"test.*-0: (no label|None)"):
        task.to_reference(read(name, task.test_splits[0], glue_folder)[0])


def test_mnli_dev_takes_the_gold_label_not_the_first(glue_folder):
    assert [example.target for example in read("mnli", "validation_matched", glue_folder)] == [
        2,
        1,
        0,
    ]


def test_the_folder_of_the_task_itself(glue_folder):
    assert read("mrpc", "train", glue_folder / "MRPC") == read("mrpc", "train", glue_folder)


def test_limit_and_counts(glue_folder, caplog):
    with caplog.at_level(logging.WARNING):
        examples = read("rte", "train", glue_folder, train=2)
    assert [example.id for example in examples] == ["train-0", "train-1"]
    assert "RTE/train.tsv: 3 rows; the official train split has 2490" in caplog.text


def test_the_malformed_line_of_qqp_is_skipped_and_still_counts_as_a_row(glue_folder):
    path = glue_folder / "QQP" / "train.tsv"
    header, *lines = path.read_text().splitlines(keepends=True)
    path.write_text(header + "1\t2\t3\tHow?\tWhy? 0\n" + "".join(lines) * 40)
    examples = read("qqp", "train", glue_folder)
    assert len(examples) == 120
    assert (examples[0].id, examples[-1].id) == ("train-1", "train-120")


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        (
            "rte",
            "RTE/train.tsv",
            "not_entailment",
            "not_entailed",
            r"RTE/train.tsv:3: 'not_entailed' is not a label.*did you",
        ),
        (
            "cola",
            "CoLA/train.tsv",
            "gj04\t0",
            "gj04\t2",
            r"CoLA/train.tsv:2: label '2' is not 0 or 1",
        ),
        ("stsb", "STS-B/train.tsv", "2.250", "5.250", r"STS-B/train.tsv:4: '5.250' is not in 0..5"),
        (
            "stsb",
            "STS-B/train.tsv",
            "2.250",
            "nan",
            r"STS-B/train.tsv:4: 'nan' is not a finite number",
        ),
        ("stsb", "STS-B/train.tsv", "2.250", "", r"STS-B/train.tsv:4: '' is not a finite number"),
        (
            "mrpc",
            "MRPC/train.tsv",
            "#2 String",
            "#3 String",
            r"MRPC/train.tsv:1: no column '#2 String'; did you mean",
        ),
    ],
)
def test_a_wrong_file(glue_folder, name, file, old, new, message):
    path = glue_folder / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        read(name, "train", glue_folder)


def test_a_wrong_folder_split_or_limit(glue_folder):
    with pytest.raises(DataError, match=r"no folder .*away; give the one that holds RTE/"):
        read("rte", "train", glue_folder / "away")
    (glue_folder / "RTE").rename(glue_folder / "rte-old")
    with pytest.raises(DataError, match=r"train.tsv: no such file .*holds: CoLA/, MNLI/"):
        read("rte", "train", glue_folder)
    with pytest.raises(DataError, match="no split 'validation'; did you mean 'validation_matched'"):
        read("mnli", "validation", glue_folder)
    with pytest.raises(RecipeError, match=r"data.limit.validation: no such split"):
        read("mnli", "train", glue_folder, validation=3)


def test_the_hub(monkeypatch, caplog):
    import datasets

    asked = []
    table = datasets.Dataset.from_dict(
        {
            "premise": ["a", "b", "c"],
            "hypothesis": ["d", "e", "f"],
            "label": [2, 0, -1],
            "idx": [4, 7, 9],
        },
        features=datasets.Features(
            {
                "premise": datasets.Value("string"),
                "hypothesis": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["entailment", "neutral", "contradiction"]),
                "idx": datasets.Value("int32"),
            }
        ),
    )
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or table
    )
    task = glue("mnli")
    data = Data(revision="abc", limit={"validation_mismatched": 2})
    with caplog.at_level(logging.WARNING):
        examples = task.read("validation_mismatched", data)
    assert asked == [
        (("nyu-mll/glue", "mnli"), {"split": "validation_mismatched", "revision": "abc"})
    ]
    assert [(e.id, e.text, e.pair, e.target) for e in examples] == [
        ("validation_mismatched-4", "a", "d", 2),
        ("validation_mismatched-7", "b", "e", 0),
    ]
    assert "3 rows; the official validation_mismatched split has 9832" in caplog.text
    with pytest.raises(DataError, match="idx 9: -1 is not a label of this task"):
        task.read("validation_mismatched", Data())
    assert [example.target for example in task.read("test_matched", Data())] == [None, None, None]


@pytest.mark.parametrize(
    "error", [ConnectionError("Couldn't reach it"), ValueError("no cache"), FileNotFoundError("?")]
)
def test_no_network_says_what_to_do(monkeypatch, error):
    import datasets

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        DataError, match=r"nyu-mll/glue rte.*data.path=FOLDER .*RTE/train.tsv.*once with network"
    ):
        glue("rte").read("train", Data())


def test_scores_are_percent_of_names_or_numbers():
    task = glue("mrpc")
    names = ["equivalent", "equivalent", "not_equivalent", "not_equivalent", "equivalent"]
    assert task.score(names, [1, 0, 0, 1, 1]) == pytest.approx(
        {"accuracy": 60.0, "f1": 100 * 2 / 3}
    )
    assert glue("cola").score([1, 1, 0, 0, 1], [1, 0, 0, 1, 1]) == pytest.approx(
        {"matthews_correlation": 100 / 6, "accuracy": 60.0}
    )
    assert glue("stsb").score([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) == pytest.approx(
        {"pearson": 50.0, "spearman": 50.0}
    )
    with pytest.raises(
        DataError, match=r"prediction 1: 'same' is not a label .*'not_equivalent', 'equivalent'"
    ):
        task.score([0, "same"], [0, 0])
    with pytest.raises(DataError, match=r"reference 0: -1 is not a label"):
        task.score([0], [-1])


@pytest.mark.parametrize(
    ("name", "split", "prediction", "file", "line"),
    [
        ("cola", "test", "acceptable", "CoLA.tsv", "1"),
        ("sst2", "test", "negative", "SST-2.tsv", "0"),
        ("mrpc", "test", "equivalent", "MRPC.tsv", "1"),
        ("stsb", "test", 3.14159, "STS-B.tsv", "3.142"),
        ("stsb", "test", 5.3, "STS-B.tsv", "5.000"),
        ("stsb", "test", -0.2, "STS-B.tsv", "0.000"),
        ("qqp", "test", "duplicate", "QQP.tsv", "1"),
        ("mnli", "test_matched", "contradiction", "MNLI-m.tsv", "contradiction"),
        ("mnli", "test_mismatched", 1, "MNLI-mm.tsv", "neutral"),
        ("qnli", "test", 1, "QNLI.tsv", "not_entailment"),
        ("rte", "test", "entailment", "RTE.tsv", "entailment"),
    ],
)
def test_submission(name, split, prediction, file, line):
    task = glue(name)
    count = task.expected_rows()[split]
    found, text = task.submission(
        split, {f"{split}-{i}": prediction for i in reversed(range(count))}
    )
    assert found == file
    assert text.splitlines() == ["index\tprediction", *(f"{i}\t{line}" for i in range(count))]
    assert text.endswith("\n")


def test_submission_is_of_a_whole_test_split():
    task = glue("rte")
    whole = {f"test-{i}": 0 for i in range(3000)}
    with pytest.raises(DataError, match="made of test, not of 'validation'"):
        task.submission("validation", whole)
    with pytest.raises(
        DataError, match=r"3000 rows, and there are 2999 predictions \(none for test-7\)"
    ):
        task.submission("test", {id: label for id, label in whole.items() if id != "test-7"})
    with pytest.raises(DataError, match="there are 3001 predictions"):
        task.submission("test", {**whole, "test-3000": 0})
    with pytest.raises(DataError, match="test-5: 'neutral' is not a label"):
        task.submission("test", {**whole, "test-5": "neutral"})
