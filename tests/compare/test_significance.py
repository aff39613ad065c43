"""Beside scipy's permutation test, bootstrap and t-test, and sacrebleu's paired test; and
calibrated under the null."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats

from lorakit.compare.significance import _difference, holm, over_examples, over_seeds
from lorakit.metrics import Means, metrics

RANDOM = np.random.default_rng(7)
FIRST = (RANDOM.random(150) < 0.70).astype(float)
SECOND = np.where(RANDOM.random(150) < 0.3, RANDOM.random(150) < 0.85, FIRST).astype(float)
MEANS = Means({"m": [*FIRST, *SECOND]}).weigh()


def test_beside_scipy():
    found = over_examples([MEANS], len(FIRST), 20_000)["m"]

    def difference(x, y, axis=-1):
        return np.mean(y, axis=axis) - np.mean(x, axis=axis)

    kind = {"permutation_type": "samples", "n_resamples": 20_000, "vectorized": True, "rng": 1}
    permuted = stats.permutation_test((FIRST, SECOND), difference, **kind)
    drawn = stats.bootstrap(
        (FIRST, SECOND),
        difference,
        paired=True,
        method="percentile",
        n_resamples=20_000,
        vectorized=True,
        rng=1,
    )
    assert found.value == pytest.approx(difference(FIRST, SECOND))
    assert found.p == pytest.approx(permuted.pvalue, abs=0.015)
    assert 0.01 < found.p < 0.5, "a p at an end would prove little"
    assert found.error == pytest.approx(drawn.standard_error, rel=0.03)
    assert (found.low, found.high) == pytest.approx(drawn.confidence_interval, abs=0.007)


def test_spearman_beside_scipy():
    """Ranks are of each resample anew."""
    right = RANDOM.normal(size=40)
    first, second = right + RANDOM.normal(size=40), right + 0.5 * RANDOM.normal(size=40)
    weighted = metrics.get("pearson_spearman").weigh([*first, *second], [*right, *right])
    found = over_examples([weighted], 40, 2000)["spearman"]

    def difference(x, y, z):
        return stats.spearmanr(y, z).statistic - stats.spearmanr(x, z).statistic

    drawn = stats.bootstrap(
        (first, second, right),
        difference,
        paired=True,
        method="percentile",
        n_resamples=2000,
        vectorized=False,
        rng=1,
    )
    assert found.value == pytest.approx(difference(first, second, right))
    assert found.error == pytest.approx(drawn.standard_error, rel=0.1)
    assert (found.low, found.high) == pytest.approx(drawn.confidence_interval, abs=0.04)


def test_bleu_beside_sacrebleu():
    """sacrebleu.significance: approximate randomisation of a corpus score."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.significance import PairedTest

    draw = random.Random(3)
    words = [f"w{i}" for i in range(12)]
    references = [" ".join(draw.choices(words, k=12)) for _ in range(60)]

    def noisy(text: str, rate: float) -> str:
        return " ".join(
            word if draw.random() > rate else draw.choice(words) for word in text.split()
        )

    first, second = ([noisy(text, rate) for text in references] for rate in (0.30, 0.25))
    weighted = metrics.get("bleu").weigh([*first, *second], [*references, *references])
    found = over_examples([weighted], 60, 10_000)["bleu"]
    metric = BLEU(references=[references])
    test = PairedTest(
        [("first", first), ("second", second)],
        {"BLEU": metric},
        None,
        test_type="ar",
        n_samples=10_000,
    )
    _, scores = test()
    base, other = scores["BLEU"]
    assert found.value == pytest.approx(other.score - base.score, abs=1e-9)
    assert found.p == pytest.approx(other.p_value, abs=0.02)
    assert 0.01 < found.p < 0.9


def test_the_other_way_round_is_the_same_with_another_sign():
    there = over_examples([MEANS], len(FIRST), 1000)["m"]
    back = over_examples([Means({"m": [*SECOND, *FIRST]}).weigh()], len(FIRST), 1000)["m"]
    assert back.value == -there.value
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert (back.error, back.p) == pytest.approx((there.error, there.p))


def test_the_same_answers_differ_by_nothing():
    found = over_examples([Means({"m": [*FIRST, *FIRST]}).weigh()], len(FIRST), 1000)["m"]
    assert (found.value, found.error, found.low, found.high, found.p) == (0, 0, 0, 0, 1)


def test_no_p_is_zero():
    n = 200
    found = over_examples([Means({"m": [0.0] * n + [1.0] * n}).weigh()], n, 999)["m"]
    assert found.p == 1 / 1000


def test_seeds_share_their_examples():
    """Two pairs that are the same pair say no more than one."""
    once, twice = (over_examples([MEANS] * k, len(FIRST), 1000)["m"] for k in (1, 2))
    assert (twice.value, twice.error, twice.p) == pytest.approx((once.value, once.error, once.p))


def test_a_metric_that_is_no_number_is_not_tested():
    weighted = metrics.get("pearson_spearman").weigh(
        [1.0] * 3 + [1.0, 2.0, 3.0], [1.0, 2.0, 3.0] * 2
    )
    found = over_examples([weighted], 3, 200)["pearson"]
    assert math.isnan(found.value)
    assert math.isnan(found.p)


def test_calibration():
    """Where nothing differs, p is uniform, and the interval holds the true difference, 0, 95 times
    of 100."""
    generator = np.random.default_rng(0)
    trials = [
        over_examples([Means({"m": generator.normal(size=80)}).weigh()], 40, 400, seed=i)["m"]
        for i in range(400)
    ]
    assert stats.kstest([t.p for t in trials], "uniform").pvalue > 0.01
    assert 0.02 <= np.mean([t.p <= 0.05 for t in trials]) <= 0.085
    assert 0.90 <= np.mean([t.low <= 0 <= t.high for t in trials]) <= 0.98


def test_power():
    """Half a standard deviation is found nearly always at 100 examples."""
    generator = np.random.default_rng(0)
    ps = [
        over_examples(
            [Means({"m": [*generator.normal(size=100), *generator.normal(0.7, size=100)]}).weigh()],
            100,
            400,
            seed=i,
        )["m"].p
        for i in range(60)
    ]
    assert np.mean([p <= 0.05 for p in ps]) > 0.95


def test_welch_by_hand():
    """Means 2 and 5, variances 1 and 4, n 3 and 3: t = 3 / sqrt(5/3), 2.94 degrees of freedom."""
    found = over_seeds([1, 2, 3], [3, 5, 7])
    error = math.sqrt(1 / 3 + 4 / 3)
    freedom = (5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2)
    wide = stats.t.ppf(0.975, freedom) * error
    assert found is not None
    assert freedom == pytest.approx(2.941, abs=1e-3)
    assert (found.value, found.error) == pytest.approx((3, error))
    assert (found.low, found.high) == pytest.approx((3 - wide, 3 + wide))
    assert found.p == pytest.approx(2 * stats.t.sf(3 / error, freedom))


@pytest.mark.parametrize(
    ("first", "second"), [([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0]), ([1.0, 1.0], [2.0, 2.0])]
)
def test_seeds_that_show_no_spread(first, second):
    assert over_seeds(first, second) is None


def test_one_run_s_seeds_may_be_equal():
    found = over_seeds([1.0, 1.0, 1.0], [3.0, 5.0, 7.0])
    assert found is not None
    assert (found.value, found.error) == pytest.approx((4.0, math.sqrt(4 / 3)))


def test_a_sum_in_another_order_is_as_large():
    drawn = np.array([0.5, 1.5])
    swapped = np.array([50.0 - 1e-8, 50.0 - 1e-6, 0.0])
    assert _difference(50.0, drawn, swapped).p == 2 / 4


def test_holm():
    """The example of Wikipedia's page on the Holm-Bonferroni method."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5]) == [0.5]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.02, math.nan, 0.03]) == pytest.approx([0.04, math.nan, 0.04], nan_ok=True)


def test_worlds_without_a_difference_do_not_count():
    """A correlation may be undefined in most of them, which is no evidence."""
    swapped = np.array([math.nan] * 99 + [3.0])
    assert _difference(1.0, np.array([0.5, 1.5]), swapped).p == 1
