"""A share of the training file as validation, or none."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from pydantic import ValidationError

from lorakit.errors import DataError
from lorakit.tasks import Data
from lorakit.tasks._held_out import held_out
from lorakit.tasks.classification import Classification
from lorakit.tasks.multilabel import Multilabel
from lorakit.tasks.regression import Regression
from lorakit.tasks.text import Text


def rows(**labels: int) -> list[tuple[str, str]]:
    return [(f"{label} {i}", label) for label, count in labels.items() for i in range(count)]


def test_each_label_has_its_share():
    found = rows(common=80, rare=20, single=1)
    held = held_out(found, 0.1, 0)
    assert Counter(found[i][1] for i in held) == {"common": 8, "rare": 2}


def test_the_shares_add_up_by_largest_remainders():
    # 0.25 of 7, 7 and 6 are 1.75, 1.75 and 1.5: five in all
    held = held_out(found := rows(a=7, b=7, c=6), 0.25, 0)
    assert Counter(found[i][1] for i in held) == {"a": 2, "b": 2, "c": 1}
    held = held_out(found := rows(a=6, b=7, c=7), 0.25, 0)
    assert Counter(found[i][1] for i in held) == {"a": 1, "b": 2, "c": 2}


def test_one_text_of_each_label_remains():
    held = held_out(found := rows(a=2, b=2), 0.99, 0)
    assert Counter(found[i][1] for i in held) == {"a": 1, "b": 1}


def test_equal_texts_are_on_the_same_side():
    found = [(f"text {i % 30}", "x") for i in range(90)]
    held = held_out(found, 0.2, 0)
    sides = [
        {i in held for i, (other, _) in enumerate(found) if other == text} for text, _ in found
    ]
    assert all(len(side) == 1 for side in sides)
    assert len(held) == 18


def test_the_seed_decides_and_the_order_does_not():
    found = rows(a=50, b=50)
    shuffled = random.Random(0).sample(found, 100)
    texts = {found[i] for i in held_out(found, 0.2, 0)}
    assert texts == {shuffled[i] for i in held_out(shuffled, 0.2, 0)}
    assert texts != {found[i] for i in held_out(found, 0.2, 1)}


def test_the_draw_is_the_same_in_every_version():
    """Another one would score an earlier run on rows that it was trained on."""
    found = rows(a=6, b=4)
    assert {found[i][0] for i in held_out(found, 0.3, 0)} == {"a 2", "a 5", "b 3"}


def test_nothing_to_hold_out():
    with pytest.raises(DataError, match=r"0\.1 of 1 different"):
        held_out([("a", "x"), ("a", "x")], 0.1, 0)


def test_the_splits_of_a_file_are_disjoint_and_complete(write):
    path = write("a.csv", "text,label\n" + "".join(f"t{i},{'pn'[i % 2]}\n" for i in range(40)))
    task = Classification(train=path, validation=0.25)
    train, held = (task.read(split, Data()) for split in ("train", "validation"))
    assert len(held) == 10
    assert Counter(e.target for e in held) == {0: 5, 1: 5}
    assert sorted(e.text for e in (*train, *held)) == sorted(f"t{i}" for i in range(40))
    # each is where it is in the file, and the limit counts the split's rows
    assert all(e.where == f"{path}:{int(e.text[1:]) + 2}" for e in held)
    assert task.read("validation", Data(limit={"validation": 3})) == held[:3]


def test_other_tasks_have_it_too(write):
    path = write(
        "a.csv", "text,label,prompt,completion\n" + "".join(f"t{i},{i},p{i},c\n" for i in range(20))
    )
    for task in (Regression(train=path, validation=0.2), Text(train=path, validation=0.2)):
        train, held = (task.read(split, Data()) for split in ("train", "validation"))
        assert (len(train), len(held)) == (16, 4)
        assert not {e.text for e in train} & {e.text for e in held}


def test_wrong_labels_have_their_places(write):
    labels = [5, 6, *[["a"]] * 6]
    rows = [{"text": str(i), "labels": label} for i, label in enumerate(labels)]
    path = write("a.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    task = Multilabel(train=path, validation=0.25, classes=("a", "b"))
    said = ""
    for split in ("train", "validation"):
        with pytest.raises(DataError) as caught:
            task.read(split, Data())
        said += str(caught.value)
    assert all(f"a.jsonl:{line}: column 'labels' holds" in said for line in (1, 2))


def test_none(write):
    for value in ("none", None):
        task = Classification(train="a.csv", validation=value)  # type: ignore[arg-type]
        assert task.validation == "none"
        assert task.eval_splits == ()
    plain = task.model_dump(mode="json", exclude_none=True)
    assert Classification(**plain) == task


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.1, True, [3]])
def test_what_is_no_share(value):
    with pytest.raises(ValidationError, match="validation"):
        Classification(train="a.csv", validation=value)
