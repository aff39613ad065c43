from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import os
from pathlib import Path

import pytest

from lorakit.errors import DataError, DataUnavailable
from lorakit.tasks import Data, Example
from lorakit.tasks.samsum import Samsum
from lorakit.verbs.score import score_split

ROOT = os.environ.get("LORAKIT_DATA")
real = pytest.mark.skipif(ROOT is None, reason="LORAKIT_DATA (a folder with samsum) is not set")


def read(split: str, folder, limit: int | None = None, **fields):
    return Samsum(**fields).read(
        split, Data(path=str(folder), limit={split: limit} if limit else {})
    )


def test_a_chat_is_lines_a_blank_line_and_the_summary(samsum_folder, caplog):
    with caplog.at_level(logging.INFO):
        examples = read("train", samsum_folder)
    assert [(e.id, e.text, e.target, e.references, e.eos) for e in examples] == [
        (
            "101",
            "Ann: Hi!\nBob: Hello.\nAnn: Lunch at 12?\n\n",
            "Ann wants to have lunch.",
            (),
            False,
        ),
        ("102-1", "Cy: Late again.\n\n", "Cy is late.", (), False),
        ("104", "Di: 😂\n\nEd: Why?\n\n", "Ed asks why.\nDi laughs.", (), False),
    ]
    assert "train.json: 1 without a dialogue left out (id 103)" in caplog.text
    assert "train.json: 4 rows; the official train split has 14732" in caplog.text


def test_scored_rows_have_their_summary_as_reference(samsum_folder):
    examples = read("test", samsum_folder)
    assert [(e.id, e.target, e.references) for e in examples] == [
        ("301", "Ann leaves.", ("Ann leaves.",)),
        ("302", 'Cy quotes a "no".', ('Cy quotes a "no".',)),
        ("303", "Di is at home.", ("Di is at home.",)),
    ]
    assert Samsum().to_reference(examples[0]) == ["Ann leaves."]
    with pytest.raises(DataError, match="x: no reference"):
        Samsum().to_reference(Example("x", "a"))


def test_splits():
    task = Samsum()
    assert (task.train_split, task.eval_splits, task.final_splits, task.test_splits) == (
        "train",
        ("validation",),
        ("test",),
        (),
    )
    assert (task.primary, task.stops, task.choices) == ("rouge1", (), ())
    assert task.expected_rows() == {"train": 14731, "validation": 818, "test": 819}
    assert "stemmer" in task.protocol


def test_an_answer_keeps_its_lines():
    task = Samsum()
    assert task.to_prediction(" Ann left.\r\nBob too.\n\n") == "Ann left.\nBob too."
    assert task.to_prediction("") == ""
    with pytest.raises(DataError, match=r"\[0.5\] is not a text"):
        task.to_prediction([0.5])


def test_a_prompt_of_ones_own_ends_as_those_that_were_learnt():
    assert Samsum().ask("Ann: Hi\r\nBob: Hi\n") == Example("prompt", "Ann: Hi\nBob: Hi\n\n")


def test_scores_are_rouge_in_percent():
    found = Samsum().score(["a b c", ""], [["a b c"], "d"])
    assert found == pytest.approx(dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), 50.0))
    with pytest.raises(DataError, match="prediction 0: 5 is not a text"):
        Samsum().score([5], ["a"])


CHAT = "Ann: one two\nBob: three\nCy: four five six"


@pytest.fixture
def long_folder(samsum_folder):
    """Dialogues of 41 and 8 characters."""
    rows = [
        {"id": "1", "summary": "s", "dialogue": CHAT.replace("\n", "\r\n")},
        {"id": "2", "summary": "t", "dialogue": "Di: five"},
    ]
    for name in ("train", "val"):
        (samsum_folder / f"{name}.json").write_text(json.dumps(rows))
    return samsum_folder


@pytest.mark.parametrize(
    ("most", "first"),
    [
        (41, CHAT),
        (40, "Ann: one two\nBob: three"),
        (24, "Ann: one two\nBob: three"),
        (23, "Ann: one two\nBob: three"),
        (22, "Ann: one two"),
        (12, "Ann: one two"),
        (11, "Ann: one tw"),
    ],
)
def test_a_long_dialogue_is_not_learnt_and_is_scored_on_its_first_utterances(
    long_folder, most, first, caplog
):
    assert len(CHAT) == 41
    with caplog.at_level(logging.INFO):
        learnt = read("train", long_folder, max_dialogue_chars=most)
        scored = read("validation", long_folder, max_dialogue_chars=most)
    assert [e.id for e in learnt] == (["1", "2"] if most == 41 else ["2"])
    assert [(e.id, e.text, e.references) for e in scored] == [
        ("1", f"{first}\n\n", ("s",)),
        ("2", "Di: five\n\n", ("t",)),
    ]
    assert (f"train.json: 1 dialogues of more than {most} characters left out" in caplog.text) == (
        most < 41
    )
    assert (f"val.json: 1 of 2 dialogues are longer than {most} characters" in caplog.text) == (
        most < 41
    )


def test_a_limit_counts_what_is_kept(long_folder):
    assert [e.id for e in read("train", long_folder, limit=1, max_dialogue_chars=20)] == ["2"]


def as_csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "dialogue", "summary"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("prefix", ["samsum-", ""])
def test_csv_files_hold_the_same_as_json(samsum_folder, tmp_path, prefix):
    folder = tmp_path / "tables"
    folder.mkdir()
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows = json.loads((samsum_folder / f"{name}.json").read_text())
        (folder / f"{prefix}{split}.csv").write_text(as_csv(rows), newline="")
        assert read(split, folder) == read(split, samsum_folder)


def test_json_comes_first_and_may_be_packed(samsum_folder):
    plain, whole = samsum_folder / "test.json", read("test", samsum_folder)
    (samsum_folder / "test.json.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (samsum_folder / "test.csv").write_text("id\n")
    plain.unlink()
    assert read("test", samsum_folder) == read("test", samsum_folder.parent) == whole


ROW = '{"id": "1", "summary": "s", "dialogue": "d"}'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test.json", "[", r"test.json:1: not JSON"),
        ("test.json", "{}", r"test.json: Input should be a valid list, found {}"),
        ("test.json", f'[{ROW}, {{"id": "2"}}]', r"test.json: \[1\]: dialogue: Field required"),
        ("test.json", f"[{ROW}, {ROW}]", r"test.json: \[1\]: id '1' .*test.json: \[0\]"),
        (
            "test.json",
            ROW.replace('"s"', '" "').join("[]"),
            r"test.json: \[0\]: id 1: the summary is empty",
        ),
        (
            "test.csv",
            "id,dialogue,summary\n1,a,b\n2,c,\n",
            r"test.csv:3: id 2: the summary is empty",
        ),
        (
            "test.csv",
            "id,dialog,summary\n1,a,b\n",
            r"test.csv:1: no column 'dialogue'; did you mean 'dialog'",
        ),
        (
            "train.csv",
            "id,dialogue,summary\n1,a,b\n",
            r"no test.csv for the test split. The .json files: corpus.7z",
        ),
        ("other.csv", "", r"train.json, val.json, test.json or samsum-train.csv.*other.csv"),
    ],
)
def test_wrong_files(write, tmp_path, name, content, message):
    write(name, content)
    with pytest.raises(DataError, match=message):
        read("test", tmp_path)


def test_the_hub(monkeypatch, caplog):
    import datasets

    asked = []
    table = datasets.Dataset.from_dict(
        {"id": [11, 12], "dialogue": ["A: b", None], "summary": ["c", "d"]}
    )
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or table
    )
    assert [(e.id, e.text) for e in Samsum().read("train", Data(revision="abc"))] == [
        ("11", "A: b\n\n")
    ]
    assert asked == [(("knkarthick/samsum",), {"split": "train", "revision": "abc"})]
    assert "knkarthick/samsum, train: 2 rows; the official train split has 14732" in caplog.text


def test_no_network_says_what_to_do(monkeypatch):
    import datasets

    def fail(*args, **kwargs):
        raise ConnectionError("Couldn't reach it")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        DataUnavailable, match=r"samsum, test, .*Couldn't reach it.*data.path=FOLDER"
    ):
        Samsum().read("test", Data())


def test_outputs_of_another_system_are_scored_by_line_and_by_id(samsum_folder, write):
    lines = Path(write("p.txt", "Ann leaves.\nno\nnobody knows\n"))
    found = score_split("samsum", lines, "test", [f"data.path={samsum_folder}"])
    assert found.n == 3
    assert found.scores["rouge1"] == pytest.approx(100 * (1 + 2 / 5 + 0) / 3)
    by_id = [("303", "nobody knows"), ("301", "Ann leaves."), ("302", "no")]
    path = write(
        "p.jsonl", "".join(json.dumps({"id": id, "prediction": text}) + "\n" for id, text in by_id)
    )
    assert score_split("samsum", Path(path), "test", [f"data.path={samsum_folder}"]) == found


@real
@pytest.mark.parametrize(("split", "rows"), [("train", 14731), ("validation", 818), ("test", 819)])
def test_official_counts(split, rows, caplog):
    with caplog.at_level(logging.INFO):
        examples = read(split, str(ROOT))
    assert len(examples) == Samsum().expected_rows()[split] == rows
    assert len({e.id for e in examples}) == rows
    assert [message for _, _, message in caplog.record_tuples] == (
        [f"{ROOT}/samsum/train.json.gz: 1 without a dialogue left out (id 13828807)"]
        if split == "train"
        else []
    )
    assert not any("\r" in e.text + str(e.target) for e in examples)
    assert sum("\n" in str(e.target) for e in examples) == (1 if split == "train" else 0)


@real
@pytest.mark.parametrize("split", ["validation", "test"])
def test_official_csv_is_the_json(split):
    assert read(split, f"{ROOT}/samsum/csv") == read(split, f"{ROOT}/samsum")


@real
def test_the_first_three_utterances_as_a_summary():
    """The baseline LEAD-3 on the test set, beside rouge-score on the file itself."""
    from rouge_score.rouge_scorer import RougeScorer

    rows = json.loads(Path(f"{ROOT}/samsum/test.json").read_text())
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    lead = [" ".join(row["dialogue"].replace("\r", "").split("\n")[:3]) for row in rows]
    direct = [scorer.score(row["summary"], text) for row, text in zip(rows, lead, strict=True)]
    examples = read("test", str(ROOT))
    task = Samsum()
    ours = [" ".join(e.text.strip().split("\n")[:3]) for e in examples]
    found = task.score(
        [task.to_prediction(text) for text in ours], [task.to_reference(e) for e in examples]
    )
    for kind in ("rouge1", "rouge2", "rougeL"):
        assert found[kind] == pytest.approx(
            100 * sum(d[kind].fmeasure for d in direct) / len(direct)
        )
    assert [round(found[kind], 2) for kind in ("rouge1", "rouge2", "rougeL")] == [
        31.31,
        8.68,
        24.17,
    ]
