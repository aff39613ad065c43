"""What is read of large files is kept, and is what the files hold."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from lorakit.errors import DataError
from lorakit.evaluation.answers import read_splits
from lorakit.files import kept_arrays, kept_reading
from lorakit.files.arrays import GrowingArrays
from lorakit.files.bad_rows import counting_dropped
from lorakit.files.detected import collecting_detected
from lorakit.tasks import ChosenExamples, Data, Example, ExampleRows, Turn, learnt_digest
from lorakit.tasks._example_rows import ExampleRowsWriter
from lorakit.tasks.chat import PLUGIN as CHAT
from lorakit.tasks.classification import Classification
from lorakit.tasks.text import Text

EXAMPLES = [
    Example("a", "plain", where="a.csv:1"),
    Example("b", "a\nline", "pair", 1, group="seen"),
    Example("c", "value", target=0.1 + 0.2),
    Example("d", "half \ud83d", target="\u2028 text", references=("x", "y"), where="\udcff:3"),
    Example("e", "words", target=(0, 2), words=((0, 2), (3, 5))),
    Example(
        "f",
        "last question",
        target="answer",
        turns=(Turn("system", "s"), Turn("user", "u", '{"name": 1}', False)),
        last_turn_only=True,
        tools="[{}]",
        answer=Turn("assistant", "answer", '{"tool_calls": []}'),
    ),
    Example("g", "", target="all of it", whole=True, eos=True),
    Example("i", "q", references=("x", "y"), references_given=(((0, 1),), ())),
    Example("h", "given", given=((0, 2), (3, 4)), target="t", target_given=((0, 1),)),
]


@pytest.fixture(autouse=True)
def _all_files_are_large(monkeypatch, tmp_path):
    monkeypatch.setattr(kept_reading, "MIN_BYTES", 1)
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "cache"))


def written(arrays: GrowingArrays, examples: list[Example]) -> ExampleRows:
    writer = ExampleRowsWriter(arrays)
    for example in examples:
        writer.add(example)
    facts = writer.finish()
    return ExampleRows(arrays.held(), facts)


def test_every_field_comes_back():
    rows = written(GrowingArrays(), EXAMPLES)
    assert list(rows) == EXAMPLES
    assert [type(e.target) for e in rows] == [type(e.target) for e in EXAMPLES]
    assert rows[-1] == EXAMPLES[-1]
    assert rows[2:4] == EXAMPLES[2:4]
    assert rows.has_turns
    assert learnt_digest(rows) == learnt_digest(EXAMPLES)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "b"},
        {"text": "b"},
        {"pair": "b"},
        {"target": "b"},
        {"references": ("b",)},
        {"group": "b"},
        {"words": ((0, 1),)},
        {"turns": (Turn("user", "b"),)},
        {"tools": "[{}]"},
        {"whole": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_learnt_and_asked_is_in_the_digest(change):
    example = Example("a", "x")
    assert learnt_digest([replace(example, **change)]) != learnt_digest([example])


def test_the_digest_of_a_text_is_the_same_in_every_version():
    """Another one would refuse to resume a run and to use answers that are there."""
    examples = [Example("a", "x", "y", 1), Example("b", "x", target="y", references=("y", "z"))]
    assert learnt_digest(examples) == "9055481b880b5847a84649fcdf340d10"


def test_a_moved_file_keeps_the_digest_and_another_text_does_not():
    first, other = Example("a", "x", where="1"), Example("a", "y", where="1")
    digests = [written(GrowingArrays(), [e]).digest for e in (first, other)]
    assert digests[0] != digests[1]
    assert digests[0] == written(GrowingArrays(), [Example("a", "x", where="2")]).digest


def test_chosen_examples_are_those_of_the_numbers():
    import numpy as np

    chosen = ChosenExamples(EXAMPLES, np.array([5, 1, 0]))
    assert list(chosen) == [EXAMPLES[5], EXAMPLES[1], EXAMPLES[0]]
    assert list(chosen[1:]) == [EXAMPLES[1], EXAMPLES[0]]


def labelled(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in rows))
    return path


def task_of(train: Path, classes: tuple[str, ...] | None = None) -> Classification:
    return Classification(train=str(train), validation="none", classes=classes)


def read(task, data=None):
    return read_splits(task, data or Data(), ["train"])["train"]


def test_what_is_kept_is_read_once_and_says_the_same(tmp_path, caplog, monkeypatch):
    train = labelled(tmp_path / "a.jsonl", [("x", "yes"), ("", "no"), ("z", "yes")])
    plain = task_of(train).read("train", Data())
    caplog.set_level(logging.INFO, "lorakit")
    caplog.clear()
    assert list(read(task_of(train))) == plain
    said = [(r.name, r.levelno, r.getMessage()) for r in caplog.records]
    assert len(said) == 2  # an empty text, and a label of one row
    caplog.clear()
    monkeypatch.setattr(Classification, "examples", None)
    monkeypatch.setattr(Classification, "_read_labels", None)
    again = read(task_of(train))
    assert isinstance(again, ExampleRows)
    assert list(again) == plain
    assert [(r.name, r.levelno, r.getMessage()) for r in caplog.records] == said


def test_a_silent_first_reading_keeps_what_a_later_one_says(tmp_path, caplog):
    train = labelled(tmp_path / "a.jsonl", [("x", "yes"), ("y", "no"), ("z", "yes")])
    caplog.set_level(logging.ERROR, "lorakit")
    read(task_of(train))
    assert not caplog.records
    caplog.set_level(logging.INFO, "lorakit")
    read(task_of(train))
    assert len(caplog.records) == 1


def test_another_file_task_or_limit_is_read_anew(tmp_path):
    train = labelled(tmp_path / "a.jsonl", [("x", "yes"), ("y", "no"), ("z", "yes")])
    assert len(read(task_of(train))) == 3
    assert len(read(task_of(train), Data(limit={"train": 2}))) == 2
    assert [e.target for e in read(task_of(train, classes=("yes", "no")))] == [0, 1, 0]
    labelled(train, [("x", "yes"), ("w", "no"), ("z", "yes")])
    assert [e.text for e in read(task_of(train))] == ["x", "w", "z"]


def test_labels_of_a_changed_training_file_are_read_anew(tmp_path):
    train = labelled(tmp_path / "a.jsonl", [("x", "yes"), ("y", "no")])
    validation = labelled(tmp_path / "b.jsonl", [("v", "yes")])
    task = Classification(train=str(train), validation=str(validation))
    assert read_splits(task, Data(), ["validation"])["validation"][0].target == 1
    labelled(train, [("x", "yes"), ("y", "no"), ("z", "maybe")])
    task = Classification(train=str(train), validation=str(validation))
    assert read_splits(task, Data(), ["validation"])["validation"][0].target == 2


def test_refused_rows_are_not_kept(tmp_path):
    train = labelled(tmp_path / "a.jsonl", [("x", "yes"), ("y", "no"), ("z", "")])
    for _ in range(2):
        with pytest.raises(DataError, match="no label"):
            read(task_of(train, classes=("yes", "no")))
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_dir()]
    assert [path.name for path in kept] == ["examples"]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    train = labelled(tmp_path / "a.jsonl", [("x", "yes"), ("y", "no")])
    examples = Classification.examples

    def changing(self, split, data):
        yield from examples(self, split, data)
        labelled(train, [("x", "yes"), ("w", "no")])

    monkeypatch.setattr(Classification, "examples", changing)
    with pytest.raises(DataError, match="changed while"):
        read(task_of(train))


def test_dropped_rows_and_what_was_detected_are_told_each_time(tmp_path):
    train = tmp_path / "chats.jsonl"
    chats = [[("user", "q"), ("assistant", "a")], [("user", "only a question")]]
    lines = [{"messages": [{"role": r, "content": c} for r, c in chat]} for chat in chats]
    train.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = []
    for _ in range(2):
        with counting_dropped() as dropped, collecting_detected() as detected:
            rows = read(CHAT(train=str(train), validation="none"), Data(empty="drop"))
        found.append((list(rows), dict(dropped), list(detected)))
    assert found[0] == found[1]
    assert sum(found[0][1].values()) == 1
    assert found[0][2]


def test_files_of_the_hub_are_not_kept(tmp_path):
    assert Text(train="hub:some/data", validation="none").files_of("train") == ()


def test_what_cannot_be_mapped_after_it_was_written_is_held(tmp_path, monkeypatch, caplog):
    def refuse(folder):
        raise ValueError("damaged")

    path = labelled(tmp_path / "a.jsonl", [("x", "a"), ("y", "b")])
    monkeypatch.setattr(kept_arrays, "open_arrays", refuse)
    assert [example.text for example in read(task_of(path, ("a", "b")))] == ["x", "y"]
    assert "damaged" in caplog.text
