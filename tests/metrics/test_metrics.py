from __future__ import annotations

import math
import random
import warnings

import pytest

from lorakit.errors import DataError, RecipeError
from lorakit.metrics import facts_of, metrics

NAMES = [
    name for name in metrics.names() if name != "bertscore"
]  # which needs a model: test_bertscore.py
TEXT_NAMES = [name for name in NAMES if facts_of(name).of == "texts"]
ANSWERS = {
    "labels": [0, 1, 1, 0, 1],
    "label sets": [{0}, {1}, {0, 1}, set(), {1}],
    "tags": [["B-X", "O"], ["O", "O"], ["B-Y", "I-Y"], ["B-X", "O"], ["O", "B-Y"]],
    "numbers": [0.5, 1.0, 2.5, 3.0, 1.5],
    "texts": ["a b c d e", "f", "g h", "i", "j"],
}


def compute(name: str, predictions, references) -> dict[str, float]:
    """With every warning an error: none may leak."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return metrics.get(name)(predictions, references)


def test_the_folder_is_not_empty():
    assert {
        "accuracy",
        "f1",
        "matthews",
        "pearson_spearman",
        "exact_match",
        "bleu",
        "e2e_metrics",
    } <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name, small_data):
    facts, answers = facts_of(name), ANSWERS[facts_of(name).of]
    scores = compute(name, answers, answers)
    assert tuple(scores) == facts.keys
    wrong = compute(name, answers, answers[::-1])
    for key, value in scores.items():
        assert type(value) is float
        assert value < wrong[key] if key in facts.lower else value > wrong[key]
        if facts.printed == 100:
            assert value * facts.printed == pytest.approx(100.0)
    with pytest.raises(DataError, match="4 predictions for 5 references"):
        compute(name, answers[:4], answers)
    with pytest.raises(DataError, match="nothing to score"):
        compute(name, [], [])
    assert metrics.get(name).__doc__


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_contract_of_texts(name, small_data):
    """The orders of references and of examples do not count, and one reference is enough."""
    texts, references = ["a b c d e", "f g"], [["x y", "a b c d z", "a b"], ["f", "f g"]]
    scores = compute(name, texts, references)
    assert compute(name, texts, [accepted[::-1] for accepted in references]) == pytest.approx(
        scores
    )
    assert compute(name, texts[::-1], references[::-1]) == pytest.approx(scores)
    assert compute(name, ["a b", "f"], ["a b", "f"]) == compute(
        name, ["a b", "f"], [["a b"], ["f"]]
    )
    with pytest.raises(DataError, match=rf"{name}: example 1 \(from 0\) has no reference"):
        compute(name, texts, [["x"], []])


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_empty_texts_are_legal(name, small_data):
    """An output without words is the worst one, but not an error."""
    facts, empty = facts_of(name), compute(name, ["", " "], ["a b", ["c d", ""]])
    assert all(math.isfinite(value) for value in empty.values())
    some = compute(name, ["a b", " "], ["a b", ["c d", ""]])
    for key, value in empty.items():
        assert value >= some[key] if key in facts.lower else value <= some[key]


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_what_needs_the_data_is_left_out_or_named_otherwise(name, no_data, caplog):
    keys, texts = facts_of(name).keys, ANSWERS["texts"]
    scores = compute(name, texts, texts)
    assert set(scores) <= {*keys, *(f"{key}_approx" for key in keys)}
    if tuple(scores) == keys:
        assert not caplog.messages
    else:
        (message,) = caplog.messages
        assert '`pip install "lorakit[nlg]"`' in message


def test_by_hand():
    # true positives 2, false positives 1, false negatives 1, true negatives 1
    predictions, references = [1, 1, 0, 0, 1], [1, 0, 0, 1, 1]
    assert compute("accuracy", predictions, references) == {"accuracy": 0.6}
    assert compute("f1", predictions, references) == pytest.approx({"f1": 2 / 3})
    assert compute("matthews", predictions, references) == pytest.approx(
        {"matthews_correlation": 1 / 6}
    )
    found = compute("pearson_spearman", [0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 4.0, 9.0])
    assert found == pytest.approx({"pearson": 15 / math.sqrt(5 * 49), "spearman": 1.0})
    assert compute("exact_match", ["a", "b", "C"], ["a", ["x", "b"], ["c"]]) == pytest.approx(
        {"exact_match": 2 / 3}
    )


def test_against_scikit_learn_and_scipy():
    import sklearn.metrics
    from scipy import stats

    draw = random.Random(0)
    predictions, references = ([draw.randrange(2) for _ in range(200)] for _ in range(2))
    assert compute("accuracy", predictions, references)[
        "accuracy"
    ] == sklearn.metrics.accuracy_score(references, predictions)
    assert compute("f1", predictions, references)["f1"] == sklearn.metrics.f1_score(
        references, predictions
    )
    found = compute("matthews", predictions, references)["matthews_correlation"]
    assert found == sklearn.metrics.matthews_corrcoef(references, predictions)
    values = [(draw.gauss(0, 1), draw.gauss(0, 1)) for _ in range(200)]
    x, y = [a for a, _ in values], [a + b for a, b in values]
    found = compute("pearson_spearman", x, y)
    assert found == {
        "pearson": stats.pearsonr(x, y).statistic,
        "spearman": stats.spearmanr(x, y).statistic,
    }  # type: ignore[attr-defined]


def test_labels_beyond_two():
    assert compute("accuracy", [0, 1, 2], [0, 2, 2])["accuracy"] == pytest.approx(2 / 3)
    assert compute("matthews", [0, 1, 2], [0, 1, 2])["matthews_correlation"] == pytest.approx(1.0)
    with pytest.raises(DataError, match=r"\[2\]"):
        compute("f1", [0, 1, 2], [0, 1, 1])
    with pytest.raises(DataError, match=r"\[-1\]"):
        compute("f1", [0, 1], [0, -1])


@pytest.mark.parametrize(
    ("predictions", "references", "f1", "mcc"),
    [
        ([0, 0], [0, 0], 0.0, 0.0),
        ([1, 1], [1, 1], 1.0, 0.0),
        ([0, 0], [1, 0], 0.0, 0.0),
        ([1, 1], [1, 0], 2 / 3, 0.0),
    ],
)
def test_one_class(predictions, references, f1, mcc):
    assert compute("f1", predictions, references)["f1"] == pytest.approx(f1)
    assert compute("matthews", predictions, references)["matthews_correlation"] == mcc


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        ([1.0, 1.0], [1.0, 2.0]),
        ([1.0, 2.0], [3.0, 3.0]),
        ([1.0], [2.0]),
        ([math.nan, 1.0], [1.0, 2.0]),
    ],
)
def test_no_correlation_is_nan(predictions, references):
    assert all(
        math.isnan(value) for value in compute("pearson_spearman", predictions, references).values()
    )


@pytest.mark.parametrize(
    "predictions", [[math.inf, 1.0, 2.0, 0.5], [3.0, -math.inf, math.inf, math.inf]]
)
def test_an_infinite_value_has_a_rank_and_no_pearson(predictions):
    """scipy's Spearman takes it, as the scorer of GLUE does."""
    import numpy as np

    references = [4.0, 2.0, 3.0, 1.0]
    found = compute("pearson_spearman", predictions, references)
    ranks = [sorted(predictions).index(value) for value in predictions]
    if len(set(predictions)) == len(predictions):
        differences = sum((r - (s - 1)) ** 2 for r, s in zip(ranks, references, strict=True))
        assert found["spearman"] == pytest.approx(1 - 6 * differences / (4 * 15))
    assert math.isfinite(found["spearman"])
    assert math.isnan(found["pearson"])
    weighted = metrics.get("pearson_spearman").weigh(predictions, references)(np.ones((1, 4)))
    assert weighted["spearman"][0] == pytest.approx(found["spearman"])


def test_nearly_constant_values_do_not_warn():
    assert set(compute("pearson_spearman", [1.0, 1.0 + 1e-15, 1.0], [1.0, 2.0, 3.0])) == {
        "pearson",
        "spearman",
    }


SYSTEM = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
FIRST = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
SECOND = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]


def test_bleu_of_the_example_in_the_manual_of_sacrebleu():
    references = [list(pair) for pair in zip(FIRST, SECOND, strict=True)]
    assert compute("bleu", SYSTEM, references)["bleu"] == pytest.approx(
        48.530827009929865, abs=1e-9
    )


def test_bleu_with_unequal_numbers_of_references():
    from sacrebleu.metrics.bleu import BLEU

    short = [SYSTEM[0], "It was", SYSTEM[2]]
    found = compute("bleu", short, [[FIRST[0], SECOND[0]], FIRST[1], [FIRST[2]]])["bleu"]
    streams: list = [FIRST, [SECOND[0], None, None]]
    assert found == BLEU().corpus_score(short, streams).score
    # an empty text would be a reference of length 0, the closest one to a short output
    assert found < BLEU().corpus_score(short, [FIRST, [SECOND[0], "", ""]]).score


def test_bleu_of_right_answers_is_100():
    assert compute("bleu", SYSTEM, SYSTEM)["bleu"] == pytest.approx(100.0)


def test_bleu_of_empty_predictions_is_zero():
    assert compute("bleu", ["", ""], ["a b", ["c", "d"]]) == {"bleu": 0.0}


def test_unknown_metric():
    with pytest.raises(RecipeError, match="no metric is named 'acuracy'; did you mean 'accuracy'"):
        facts_of("acuracy")
