from __future__ import annotations

import pytest
from pydantic import ValidationError

from lorakit.errors import DataError
from lorakit.tasks import Data, Head
from lorakit.tasks.text import Text

CSV = "prompt,completion\nhello,bonjour\nhello,salut\nbye,au revoir\nhello,bonjour\n"


@pytest.fixture
def task(write) -> Text:
    path = write("a.csv", CSV)
    return Text(train=path, validation=path, separator=" => ")


def test_every_train_row_is_an_example(task):
    assert task.head is Head.CAUSAL
    assert [(e.id, e.text, e.target, e.references) for e in task.read("train", Data())] == [
        ("train-0", "hello => ", "bonjour", ()),
        ("train-1", "hello => ", "salut", ()),
        ("train-2", "bye => ", "au revoir", ()),
        ("train-3", "hello => ", "bonjour", ()),
    ]


def test_equal_prompts_are_scored_once_with_every_answer(task):
    assert [(e.id, e.text, e.references) for e in task.read("validation", Data())] == [
        ("validation-0", "hello => ", ("bonjour", "salut")),
        ("validation-2", "bye => ", ("au revoir",)),
    ]
    assert len(task.read("validation", Data(limit={"validation": 2}))) == 1


def test_a_column_of_references(write):
    train = write("a.csv", CSV)
    path = write(
        "a.jsonl", '{"prompt": "hello", "refs": ["bonjour", " salut "]}\n{"prompt": "bye", "refs": "au revoir"}\n'
    )
    task = Text(train=train, validation=path, references="refs")
    examples = task.read("validation", Data())
    assert [task.to_reference(example) for example in examples] == [["bonjour", "salut"], ["au revoir"]]
    assert len(task.read("train", Data())) == 4


def test_hidden_test_answers(write):
    train = write("a.csv", CSV)
    task = Text(train=train, validation=train, test=write("t.csv", "prompt\nhello\nhello\n"))
    (example,) = task.read("test", Data())
    assert (example.id, example.target, example.references) == ("test-0", None, ())
    with pytest.raises(DataError, match="test-0: no reference"):
        task.to_reference(example)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a", "completion": ""}', r"a.jsonl:1: column 'completion' .*empty"),
        ('{"prompt": "a", "completion": 3}', r"a.jsonl:1: column 'completion' holds 3"),
        ('{"prompt": null, "completion": "b"}', r"a.jsonl:1: column 'prompt' holds None, not a text"),
        ('{"prompt": "a", "complection": "b"}', r"a.jsonl:1: no column 'completion'; did you mean 'complection'"),
    ],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_wrong_rows(write, split, line, message):
    path = write("a.jsonl", line + "\n")
    with pytest.raises(DataError, match=message):
        Text(train=path, validation=path).read(split, Data())


def test_an_empty_list_of_references(write):
    path = write("a.jsonl", '{"prompt": "a", "refs": []}\n')
    with pytest.raises(DataError, match=r"a.jsonl:1: column 'refs' holds \[\]"):
        Text(train=path, validation=path, references="refs").read("validation", Data())


def test_answers_are_stripped_and_scores_are_as_printed(task):
    assert task.to_prediction(" bonjour\n") == "bonjour"
    with pytest.raises(DataError, match="needs a text"):
        task.to_prediction([0.1])
    long = "the cat sat on the mat"
    scores = task.score([long, "no"], [[long, "x"], ["yes"]])
    assert scores["exact_match"] == 50.0
    assert 50 < scores["bleu"] < 100
    assert task.primary == "exact_match"


def test_metrics_compare_texts():
    with pytest.raises(ValidationError, match="'accuracy' compares labels, not texts"):
        Text(train="a.csv", validation="b.csv", metrics=("accuracy",))


@pytest.mark.parametrize(("names", "primary"), [(["ter"], None), (["bleu", "ter"], "ter")])
def test_a_value_that_is_better_when_lower_selects_nothing(names, primary):
    with pytest.raises(ValidationError, match="ter is the better the lower it is"):
        Text(train="a.csv", validation="b.csv", metrics=names, primary_metric=primary)
    assert Text(train="a.csv", validation="b.csv", metrics=["bleu", "ter"]).primary == "bleu"
