"""Outputs that are empty or have a few words: the official scorers' values, to the digit."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from lorakit.metrics import metrics
from lorakit.metrics._mteval import mteval_tokens
from lorakit.metrics._tokens import say_once

FOLDER = Path(__file__).parent.parent / "assets" / "scorers"
ROWS = [
    json.loads(line) for line in (FOLDER / "rows.jsonl").read_text(encoding="utf-8").splitlines()
]
OUTPUTS = [row["output"] for row in ROWS]
REFERENCES = [row["references"] for row in ROWS]
VALUES = json.loads((FOLDER / "short.json").read_text(encoding="utf-8"))["cases"]
SHARES = ("bleu", "meteor", "rouge_l")


def first(text: str, words: int) -> str:
    return " ".join(text.split()[:words])


SHORT = {
    "one empty": ["", *OUTPUTS[1:]],
    "cut to 0 to 5 words": [first(text, i % 6) for i, text in enumerate(OUTPUTS)],
    "three words each": [first(text, 3) for text in OUTPUTS],
    "one word each": [first(text, 1) for text in OUTPUTS],
    "all empty": [""] * len(OUTPUTS),
    "nothing matches": ["zzz qqq xxx www vvv uuu"] * len(OUTPUTS),
}


def assert_official(case: str, keys: set[str]) -> None:
    found = metrics.get("e2e_metrics")(SHORT[case], REFERENCES)
    for key in keys & VALUES[case]["e2e_metrics"].keys():
        value = found[key] / 100 if key in SHARES else found[key]
        official = VALUES[case]["e2e_metrics"][key]
        assert value == pytest.approx(official, rel=1e-12, abs=1e-15), (case, key)


@pytest.mark.parametrize("case", SHORT)
def test_bleu_and_nist(case, no_data):
    assert_official(case, {"bleu", "nist"})


def test_lower_case_comes_after_the_replacement_of_entities():
    """mteval-v13a knows `&quot;`, and not `&QUOT;`."""
    assert mteval_tokens("A&quot;B") == ["a", '"', "b"]
    assert mteval_tokens("A&QUOT;B") == ["a", "&", "quot", ";", "b"]


@pytest.mark.slow
@pytest.mark.parametrize("case", SHORT)
def test_all_five(case, real_data):
    assert_official(case, {"bleu", "nist", "meteor", "rouge_l", "cider"})


@pytest.mark.parametrize("case", SHORT)
def test_bleu_of_generation_eval(case, no_data):
    found = metrics.get("generation_eval")(SHORT[case], REFERENCES)["bleu"]
    official = VALUES[case]["generation_eval"]["bleu"]
    assert found == pytest.approx(official, abs=0.005, rel=0)


def test_every_case_is_frozen():
    assert SHORT.keys() == VALUES.keys()


def test_a_resample_has_the_same_value(no_data):
    """Each example once is the plain score, also where n-grams are counted away."""
    import numpy as np

    metric = metrics.get("e2e_metrics")
    for case in ("one empty", "cut to 0 to 5 words"):
        plain = metric(SHORT[case], REFERENCES)
        weighted = metric.weigh(SHORT[case], REFERENCES)(np.ones((1, len(OUTPUTS))))
        assert weighted["bleu"][0] == pytest.approx(plain["bleu"], rel=1e-12)


@pytest.mark.parametrize(("case", "short"), [("one empty", 1), ("one word each", 18)])
def test_short_outputs_are_said(case, short, no_data, caplog):
    say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        metrics.get("e2e_metrics")(SHORT[case], REFERENCES)
        metrics.get("e2e_metrics")(SHORT[case], REFERENCES)
    said = [record.message for record in caplog.records if "fewer than 3 tokens" in record.message]
    assert len(said) == 1
    assert f"{short} of 18 outputs" in said[0]
