"""Values in a temporary file are those that were set, in their places."""

from __future__ import annotations

import pytest

from lorakit import stored as module
from lorakit.evaluation.answers import Answer, StoredAnswers, score_answers
from lorakit.runs.lines import write_lines
from lorakit.stored import MappedValues, StoredValues, mapped, spread, stored, values_of
from lorakit.tasks.text import Text

VALUES = ["a", ["x", "y"], 0.1 + 0.2, None, "half \ud83d", {"k": [1, 2]}, "", True, 3]


@pytest.fixture
def _all_are_many(monkeypatch):
    monkeypatch.setattr(module, "FEW", 0)


def test_values_come_back_in_any_order_and_again():
    found = StoredValues(len(VALUES))
    for place in reversed(range(len(VALUES))):
        found[place] = VALUES[place]
    assert list(found) == VALUES
    assert found[1:3] == VALUES[1:3]
    found[0] = "another"
    assert found[0] == "another"
    assert found[-1] == 3
    with pytest.raises(IndexError):
        found[len(VALUES)]


def test_values_longer_than_a_block_come_back(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 10)
    found = StoredValues(0)
    for value in VALUES:
        found.append(value)
    assert list(found) == VALUES


def test_few_values_are_a_list_and_many_are_in_a_file(monkeypatch):
    monkeypatch.setattr(module, "FEW", 3)
    for count, kind in ((3, list), (4, StoredValues)):
        assert type(stored(iter(range(count)))) is kind
        assert list(stored(iter(range(count)))) == list(range(count))
        assert type(values_of(count)) is kind
    doubled = [mapped(list(range(count)), lambda value, n: value + n) for count in (3, 4)]
    assert [type(one) for one in doubled] == [list, MappedValues]
    assert [list(one) for one in doubled] == [[0, 2, 4], [0, 2, 4, 6]]
    assert doubled[1][1:3] == [2, 4]
    assert doubled[1][-1] == 6
    with pytest.raises(IndexError):
        doubled[1][4]


ANSWERS = [
    Answer("a", "yes", ["yes", "no"], "yes ", "text", "seen", False),
    Answer("b", "no", ["yes"], "no", "other", nats=1.25, tokens=3),
]


@pytest.mark.usefixtures("_all_are_many")
def test_answers_in_a_file_are_the_answers_and_have_their_scores():
    task = Text(train="a.jsonl", validation="b.jsonl")
    found = StoredAnswers(len(ANSWERS))
    for place in (1, 0):
        found[place] = ANSWERS[place]
    assert list(found) == ANSWERS
    assert found[:1] == ANSWERS[:1]
    scores = score_answers(task, found)
    module.FEW = 10
    assert scores == score_answers(task, ANSWERS)


def test_lines_that_fail_midway_leave_the_file_as_it_was(tmp_path):
    file = tmp_path / "answers.jsonl"
    write_lines(file, ({"n": n} for n in range(2)))
    before = file.read_text()

    def failing():
        yield {"n": 3}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines(file, failing())
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("count", "most", "found"),
    [(5, 2, [0, 2]), (5, 3, [0, 1, 3]), (3, 8, [0, 1, 2]), (4, 4, [0, 1, 2, 3]), (0, 2, [])],
)
def test_a_part_is_spread_over_all_values(count, most, found):
    """Also where there are fewer than twice as many as are wanted."""
    assert spread(range(count), most) == found
