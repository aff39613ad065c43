from __future__ import annotations

import logging
import math
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from lorakit.errors import DataError, TrainingError
from lorakit.tasks import Data, Example
from lorakit.tasks.glue import Glue
from lorakit.tasks.mnli_causal import MnliCausal
from lorakit.verbs.score import score_split

ROOT = os.environ.get("LORAKIT_DATA")
real = pytest.mark.skipif(ROOT is None, reason="LORAKIT_DATA (a folder with glue/MNLI) is not set")


def read(split: str, folder, **fields):
    return MnliCausal(**fields).read(split, Data(path=str(folder)))


def test_two_sentences_become_a_question(glue_folder):
    question = "She left the room.\nQuestion: Someone left {}. True, False, or Neither?\nAnswer:"
    assert [
        (e.id, e.text, e.pair, e.target, e.references, e.eos) for e in read("train", glue_folder)
    ] == [
        ("train-0", question.format(0), None, " True", (" True",), False),
        ("train-1", question.format(1), None, " Neither", (" Neither",), False),
        ("train-2", question.format(2), None, " False", (" False",), False),
    ]


def test_words_of_ones_own_are_asked_for_and_answered(glue_folder):
    task = MnliCausal(words=["yes", "maybe", "no"])
    assert task.choices == (" yes", " maybe", " no")
    example = read("validation_matched", glue_folder, words=("yes", "maybe", "no"))[0]
    assert example.text.endswith("Someone left 0. yes, no, or maybe?\nAnswer:")
    assert (example.target, task.to_reference(example)) == (" no", "contradiction")


@pytest.mark.parametrize(
    "words",
    [
        ["a", "b"],
        ["a", "b", "c", "d"],
        ["a", "b", "a"],
        ["a", "", "c"],
        ["a", " b", "c"],
        ["a", "b\n", "c"],
    ],
)
def test_other_words_are_refused(words):
    with pytest.raises(ValidationError, match="for entailment, neutral, contradiction"):
        MnliCausal(words=words)


@pytest.mark.parametrize(
    ("output", "label"),
    [
        ([-0.1, -5.0, -3.0], "entailment"),
        ([-4.0, -0.5, -3.0], "neutral"),
        ([-4.0, -5.0, -3.0], "contradiction"),
        ([-math.inf, -9.0, -math.inf], "neutral"),
        ([-1.0, -1.0, -1.0], "entailment"),
        (" Neither", "neutral"),
        ("False\n", "contradiction"),
        ("entailment", "entailment"),
    ],
)
def test_the_likeliest_word_is_the_answer(output, label):
    assert MnliCausal().to_prediction(output) == label


def test_what_is_no_answer():
    task = MnliCausal()
    with pytest.raises(DataError, match=r"'Yes' .* entailment, .*True, Neither, False"):
        task.to_prediction("Yes")
    with pytest.raises(DataError, match=r"^7 "):
        task.to_prediction(7)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"needs 3 number"):
        task.to_prediction([-1.0, -2.0])
    with pytest.raises(TrainingError, match="nan"):
        task.to_prediction([-1.0, math.nan, -2.0])
    with pytest.raises(DataError, match=r"^a: no label"):
        task.to_reference(Example("a", "b"))


def test_splits_and_rows_are_those_of_glue():
    task, glue = MnliCausal(), Glue(name="glue/mnli")
    assert task.eval_splits == glue.eval_splits == ("validation_matched", "validation_mismatched")
    assert task.test_splits == glue.test_splits == ("test_matched", "test_mismatched")
    assert task.expected_rows() == glue.expected_rows()
    assert (task.primary, task.final_splits, task.labels) == ("accuracy", (), ())


@pytest.mark.parametrize(
    "split", ["train", "validation_matched", "validation_mismatched", "test_matched"]
)
def test_rows_have_the_ids_and_labels_of_glue(glue_folder, split):
    ours, glue = read(split, glue_folder), Glue(name="glue/mnli")
    theirs = glue.read(split, Data(path=str(glue_folder)))
    assert [e.id for e in ours] == [e.id for e in theirs]
    if split.startswith("test"):
        assert [(e.target, e.references) for e in ours] == [(None, ())] * 3
    else:
        assert [MnliCausal().to_reference(e) for e in ours] == [
            glue.to_reference(e) for e in theirs
        ]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.text.startswith(f"{other.text}\nQuestion: {other.pair} ")


def test_score_is_accuracy_in_percent():
    task = MnliCausal()
    assert task.score(
        ["entailment", "neutral", 2], ["entailment", "contradiction", "contradiction"]
    ) == pytest.approx({"accuracy": 200 / 3})
    with pytest.raises(DataError, match="prediction 0: 'True' is not a label"):
        task.score(["True"], [0])


def test_more_shots_than_examples(glue_folder):
    with pytest.raises(DataError, match=r"task\.shots: 20 .*'entailment'"):
        read("validation_matched", glue_folder, shots=20)


def test_a_wrong_label_says_where(glue_folder):
    path = glue_folder / "MNLI" / "dev_matched.tsv"
    path.write_text(path.read_text().replace("\tneutral\n", "\t-\n"))
    with pytest.raises(DataError, match=r"MNLI/dev_matched.tsv:3: '-' is not a label of this task"):
        read("validation_matched", glue_folder)


def test_a_file_of_answers_is_scored(glue_folder, write):
    lines = Path(write("p.txt", "contradiction\nNeither\nFalse\n"))
    found = score_split("mnli_causal", lines, "validation_matched", [f"data.path={glue_folder}"])
    assert found.scores == pytest.approx({"accuracy": 200 / 3})
    numbers = Path(write("p.jsonl", '{"prediction": [-9, -8, -7]}\n' * 3))
    found = score_split("mnli_causal", numbers, "validation_matched", [f"data.path={glue_folder}"])
    assert found.scores == pytest.approx({"accuracy": 100 / 3})


@real
@pytest.mark.parametrize(
    ("split", "rows"),
    [("train", 12925), ("validation_matched", 7469), ("validation_mismatched", 1000)],
)
def test_slices_of_the_official_files(split, rows, caplog):
    with caplog.at_level(logging.WARNING):
        examples = read(split, f"{ROOT}/glue")
    assert len(examples) == rows
    assert {e.target for e in examples} == {" True", " Neither", " False"}
    assert (
        f"{rows} rows; the official {split} split has {MnliCausal().expected_rows()[split]}"
        in caplog.text
    )
    theirs = Glue(name="glue/mnli").read(split, Data(path=f"{ROOT}/glue"))
    words = [MnliCausal().choices[e.target] for e in theirs]  # type: ignore[index]
    assert words == [e.target for e in examples]
