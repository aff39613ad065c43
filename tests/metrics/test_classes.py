"""Metrics over classes, sets of labels, entities and answers, against reference scorers."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from lorakit.errors import DataError
from lorakit.metrics import entities, metrics


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_f1_of_classes_is_scikit_learns(classes, average):
    from sklearn.metrics import f1_score

    draw = random.Random(classes)
    said = [draw.randrange(classes) for _ in range(60)]
    right = [draw.randrange(0, classes, 2) for _ in range(60)]  # some classes never occur
    found = metrics.get(f"{average}_f1")(said, right)[f"{average}_f1"]
    assert found == pytest.approx(f1_score(right, said, average=average, zero_division=0))


def test_f1_of_sets_is_scikit_learns():
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.preprocessing import MultiLabelBinarizer

    draw = random.Random(0)
    said, right = (
        [{i for i in range(4) if draw.random() < p} for _ in range(50)] for p in (0.4, 0.3)
    )
    binary = MultiLabelBinarizer(classes=list(range(4)))
    a, b = binary.fit_transform(said), binary.fit_transform(right)
    found = metrics.get("multilabel_f1")(said, right)
    assert found == pytest.approx(
        {
            "micro_f1": f1_score(b, a, average="micro"),
            "macro_f1": f1_score(b, a, average="macro"),
            "subset_accuracy": accuracy_score(b, a),
        }
    )


def test_no_label_where_none_is_correct_is_no_mistake():
    found = metrics.get("multilabel_f1")([[], []], [[], []])
    assert found == {"micro_f1": 1.0, "macro_f1": 1.0, "subset_accuracy": 1.0}


# what seqeval 1.2.2's `get_entities` gives for these tags
@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("I-PER I-PER O I-LOC B-LOC", [("PER", 0, 1), ("LOC", 3, 3), ("LOC", 4, 4)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
        ("S-PER B-LOC I-LOC E-LOC E-LOC", [("PER", 0, 0), ("LOC", 1, 3), ("LOC", 4, 4)]),
        ("S-PER I-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("B-A-B I-A-B O", [("A-B", 0, 1)]),
        ("O O", []),
    ],
)
def test_entities_are_seqevals(tags, expected):
    assert entities(tags.split()) == expected


def test_entity_f1_of_seqevals_readme():
    right = ["O O O B-MISC I-MISC I-MISC O".split(), "B-PER I-PER O".split()]
    said = ["O O B-MISC I-MISC I-MISC I-MISC O".split(), "B-PER I-PER O".split()]
    assert metrics.get("entity_f1")(said, right)["entity_f1"] == 0.5
    assert metrics.get("tag_accuracy")(said, right)["tag_accuracy"] == 0.8


def test_words_that_were_cut_off_are_outside():
    right, said = [["B-X", "O", "B-X"]], [["B-X"]]
    found = metrics.get("entity_f1")(said, right)
    assert (found["entity_precision"], found["entity_recall"]) == (1.0, 0.5)
    assert metrics.get("tag_accuracy")(said, right)["tag_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("tag", ["NOUN", "B", "B-", "X-PER"])
def test_tags_that_are_of_no_entity(tag):
    with pytest.raises(DataError, match=tag):
        entities([tag])


# by the official script: lower case, no punctuation, articles or extra blanks; F1 of words
@pytest.mark.parametrize(
    ("said", "accepted", "same", "f1"),
    [
        ("The Eiffel-Tower!", ["eiffeltower"], 1, 1),
        ("in Paris, France", ["Paris"], 0, 0.5),
        ("a cat  sat", ["cat sat", "dog"], 1, 1),
        ("an owl", ["the owl"], 1, 1),
        ("", [""], 1, 1),
        ("Paris", [""], 0, 0),
        ("", ["Paris"], 0, 0),
        ("b b c", ["b c c"], 0, 2 / 3),
        ("the", ["the", "cat"], 0, 0),  # an accepted text without a word is left out
    ],
)
def test_squad(said, accepted, same, f1):
    found = metrics.get("squad")([said], [accepted])
    assert found == pytest.approx({"squad_f1": f1, "squad_em": same})


@pytest.mark.parametrize("name", ["matthews", "macro_f1", "weighted_f1", "multilabel_f1"])
def test_a_score_does_not_hold_a_count_of_each_example_and_class(name):
    labels = list(range(1000))
    given = [[label] for label in labels] if name == "multilabel_f1" else labels
    tracemalloc.start()
    try:
        scores = metrics.get(name)(given, given)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert set(scores.values()) == {1.0}
    assert peak < 2 * 2**20, "a million counts need 8 MiB at least"
