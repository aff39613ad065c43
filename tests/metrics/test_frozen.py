"""The official scorers' values on texts of our own: `assets/scorers/values.json` says how they were
made.

BLEU, NIST and TER are always compared; METEOR, ROUGE-L and CIDEr where pycocoevalcap is installed.
`test_official.py` has the outputs of real systems.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorakit.metrics import metrics

FOLDER = Path(__file__).parent.parent / "assets" / "scorers"
ROWS = [
    json.loads(line) for line in (FOLDER / "rows.jsonl").read_text(encoding="utf-8").splitlines()
]
VALUES = json.loads((FOLDER / "values.json").read_text(encoding="utf-8"))
SHARES = ("bleu", "meteor", "rouge_l")
EXACT = 1e-9
TWO_DECIMALS = 0.005
ALWAYS = {"e2e_metrics": ("bleu", "nist"), "generation_eval": ("bleu", "ter")}


def ours(suite: str) -> dict[str, float]:
    """In the unit of the frozen values."""
    scores = metrics.get(suite)(
        [row["output"] for row in ROWS], [row["references"] for row in ROWS]
    )
    if suite == "e2e_metrics":
        return {key: value / 100 if key in SHARES else value for key, value in scores.items()}
    return scores


def assert_official(suite: str, found: dict[str, float], keys: tuple[str, ...]) -> None:
    for key in keys:
        near = TWO_DECIMALS if (suite, key) == ("generation_eval", "bleu") else EXACT
        assert found[key] == pytest.approx(VALUES[suite][key], abs=near, rel=0), key


@pytest.mark.parametrize("suite", ALWAYS)
def test_what_needs_no_tables(suite, no_data):
    assert_official(suite, ours(suite), ALWAYS[suite])


@pytest.mark.parametrize("suite", ALWAYS)
def test_all_of_it(suite, real_data):
    assert_official(suite, ours(suite), tuple(VALUES[suite]))


def test_approximate_tokens_come_near(no_data):
    found = ours("e2e_metrics")
    assert found["rouge_l_approx"] / 100 == pytest.approx(
        VALUES["e2e_metrics"]["rouge_l"], abs=0.02
    )
    assert found["cider_approx"] == pytest.approx(VALUES["e2e_metrics"]["cider"], abs=0.2)
