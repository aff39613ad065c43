"""Is a difference more than chance? Of other examples: the paired bootstrap and approximate randomisation. Of another
training: Welch's t over the seeds.

    bootstrap      examples are drawn again with replacement, for both runs alike: standard error and interval
    randomisation  the two answers to each example change sides at random: p, the share of such worlds in which the
                   difference is as large as the one found (Noreen 1989; Riezler and Maxwell 2005)
    Welch          t = (mean2 - mean1) / sqrt(s1^2/n1 + s2^2/n2), degrees of freedom after Satterthwaite
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lorakit.metrics import Weighted

if TYPE_CHECKING:
    from numpy import ndarray

LEVEL = 0.05
NUMBERS = 2**22
"""Weights that are in memory at a time."""


@dataclass(frozen=True)
class Difference:
    """The second minus the first: with its standard error, the ends of its 95 % interval, and a two-sided p."""

    value: float
    error: float
    low: float
    high: float
    p: float


def over_examples(
    pairs: Sequence[Weighted], n: int, resamples: int = 10_000, seed: int = 0
) -> dict[str, Difference]:
    """Metric -> mean difference over the pairs, on other examples than these n.

    pairs: of a seed of the first run and one of the second, the metrics on 2 n examples: the n of the first, and the
    same n as the second answers them. In every resample all pairs get the same examples. An interval is that of
    percentiles. p is never 0: of 10,000 worlds the one that was found is one.
    """
    generator = np.random.default_rng(seed)
    ones = np.ones((1, n))
    found = {key: float(value[0]) for key, value in _apart(pairs, ones, 0 * ones).items()}
    drawn = _gathered(pairs, (_drawn(generator, rows, n) for rows in _portions(resamples, n)))
    swapped = _gathered(pairs, (_swapped(generator, rows, n) for rows in _portions(resamples, n)))
    return {key: _difference(value, drawn[key], swapped[key]) for key, value in found.items()}


def _portions(resamples: int, n: int) -> Iterator[int]:
    most = max(1, NUMBERS // (2 * n))
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def _drawn(generator: np.random.Generator, rows: int, n: int) -> tuple[ndarray, ndarray]:
    """How often each example was drawn."""
    places = generator.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
    counts = np.bincount(places.ravel(), minlength=rows * n).reshape(rows, n).astype(float)
    return counts, np.zeros_like(counts)


def _swapped(generator: np.random.Generator, rows: int, n: int) -> tuple[ndarray, ndarray]:
    """Whose answer each example has."""
    stays = generator.integers(0, 2, (rows, n)).astype(float)
    return stays, 1 - stays


def _gathered(
    pairs: Sequence[Weighted], weights: Iterator[tuple[ndarray, ndarray]]
) -> dict[str, ndarray]:
    parts = [_apart(pairs, own, other) for own, other in weights]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _apart(pairs: Sequence[Weighted], own: ndarray, other: ndarray) -> dict[str, ndarray]:
    """The second minus the first, where a run has its `own` answers so often, and the `other` run's so often."""
    first, second = np.hstack([own, other]), np.hstack([other, own])
    sums: dict[str, ndarray] = {}
    for pair in pairs:
        before, after = pair(first), pair(second)
        for key, value in after.items():
            sums[key] = sums.get(key, 0.0) + (value - before[key]) / len(pairs)
    return sums


def _difference(value: float, drawn: ndarray, swapped: ndarray) -> Difference:
    drawn = drawn[np.isfinite(drawn)]  # a correlation of constants is none
    if not math.isfinite(value) or len(drawn) < 2:
        return Difference(value, math.nan, math.nan, math.nan, math.nan)
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    # sums in another order differ in their last digits
    as_large = np.abs(swapped) >= abs(value) - 1e-9 * max(1.0, abs(value))
    p = (1 + int(as_large.sum())) / (1 + len(swapped))
    return Difference(value, float(drawn.std(ddof=1)), float(low), float(high), p)


def over_seeds(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """The difference of the means if both were trained again; None where it cannot be known: fewer than two seeds on a
    side, or no two that differ."""
    if min(len(first), len(second)) < 2 or not any(
        statistics.pvariance(group) for group in (first, second)
    ):
        return None
    from scipy.stats import ttest_ind

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # scipy complains where the seeds of one side are equal
        test: Any = ttest_ind(second, first, equal_var=False)
    low, high = test.confidence_interval(1 - LEVEL)
    error = math.sqrt(sum(statistics.variance(group) / len(group) for group in (first, second)))
    value = statistics.fmean(second) - statistics.fmean(first)
    return Difference(value, error, float(low), float(high), float(test.pvalue))


def holm(ps: Sequence[float]) -> list[float]:
    """The p of each of several tests, so that the chance of any false one among them stays below the level (Holm
    1979). NaN stays NaN and counts as no test."""
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=lambda i: ps[i])
    corrected, least = list(ps), 0.0
    for place, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - place) * ps[i]))
        corrected[i] = least
    return corrected
