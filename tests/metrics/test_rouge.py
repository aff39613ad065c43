"""ROUGE beside the library that it names, called as its README calls it."""

from __future__ import annotations

import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from lorakit.metrics import facts_of
from lorakit.metrics.rouge import KINDS, rouge

WORDS = "the cat cats sat sitting on a mat, running. Runs ran 12 pm Ünal don't -- ok\n".split(" ")


def text(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randrange(12)))


def direct(prediction: str, accepted: list[str]) -> dict[str, float]:
    """The best F1 of several references, for each kind on its own."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    each = [scorer.score(reference, prediction) for reference in accepted]
    return {kind: max(scores[kind].fmeasure for scores in each) for kind in KINDS}


def test_equals_rouge_score():
    draw = random.Random(0)
    predictions = [text(draw) for _ in range(60)]
    references = [[text(draw) for _ in range(draw.randrange(1, 4))] for _ in range(60)]
    wanted = [
        direct(said, accepted) for said, accepted in zip(predictions, references, strict=True)
    ]
    found = rouge(predictions, references)
    assert found == pytest.approx({kind: 100 * sum(w[kind] for w in wanted) / 60 for kind in KINDS})
    assert len({round(value, 6) for value in found.values()}) == 4, (
        "every kind has its own value here"
    )


def test_by_hand():
    found = rouge(["the cat sat on the mat"], ["the cat lay on a mat"])
    # 4 of 6 words; `the cat` of 5 pairs; the, cat, on, mat in this order
    assert found == pytest.approx(
        {"rouge1": 400 / 6, "rouge2": 20.0, "rougeL": 400 / 6, "rougeLsum": 400 / 6}
    )


def test_the_stemmer_is_on_and_case_does_not_count():
    assert rouge(["She ENJOYED meetings"], ["she enjoys meeting"])["rouge1"] == pytest.approx(100.0)


def test_lines_are_sentences_for_rouge_lsum_only():
    found = rouge(["c d\na b"], ["a b\nc d"])
    assert found["rougeL"] == pytest.approx(50.0)
    assert found["rougeLsum"] == pytest.approx(100.0)


def test_each_kind_takes_its_best_reference():
    found = rouge(["a b c d"], [["d c b a", "a b x y"]])
    assert found["rouge1"] == pytest.approx(100.0)
    assert found["rouge2"] == pytest.approx(100 / 3)
    assert found["rougeL"] == pytest.approx(50.0)


def test_the_mean_is_plain_and_an_empty_prediction_is_zero():
    assert rouge([""], ["a b"]) == dict.fromkeys(KINDS, 0.0)
    assert rouge(["", "a b"], ["a b", "a b"]) == pytest.approx(dict.fromkeys(KINDS, 50.0))
    assert rouge(["да"], ["да"])["rouge1"] == 0.0, "the library knows a-z and digits only"


def test_the_protocol_says_what_differs_between_scorers():
    protocol = facts_of("rouge").protocol
    assert all(
        part in protocol for part in ("rouge-score", "stemmer", "mean", "rougeL", "rougeLsum")
    )
