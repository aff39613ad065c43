"""Pearson's correlation of the values and Spearman's correlation of their ranks, what GLUE scores STS-B with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lorakit.metrics._base import Facts, metric
from lorakit.metrics._weighted import Weighted

if TYPE_CHECKING:
    from numpy import ndarray


def weighted(predictions: Sequence[float], references: Sequence[float]) -> Weighted:
    import numpy as np

    sides = [np.asarray(side, dtype=float) for side in (predictions, references)]

    def correlations(weights: ndarray) -> dict[str, ndarray]:
        x, y = sides
        return {
            "pearson": _correlation(x[None], y[None], weights),
            "spearman": _correlation(_ranks(x, weights), _ranks(y, weights), weights),
        }

    return correlations


def _ranks(values: ndarray, weights: ndarray) -> ndarray:
    """(resamples, examples): the rank of each value among all, each as often as it counts; ties share the mean rank."""
    import numpy as np

    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    equal = np.add.reduceat(weights[:, order], starts, axis=1)
    return (np.cumsum(equal, axis=1) - (equal - 1) / 2)[:, group]


def _correlation(x: ndarray, y: ndarray, weights: ndarray) -> ndarray:
    import numpy as np

    def middle(values: ndarray) -> ndarray:
        return (weights * values).sum(1, keepdims=True) / weights.sum(1, keepdims=True)

    x, y = x - middle(x), y - middle(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights * x * y).sum(1) / np.sqrt((weights * x**2).sum(1) * (weights * y**2).sum(1))


@metric(Facts(of="numbers", keys=("pearson", "spearman")), weighted)
def pearson_spearman(predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
    """Each in -1..1; NaN where a side is constant or holds a value that is not finite: no correlation is defined."""
    from scipy.stats import pearsonr, spearmanr

    if not all(_varies(side) for side in (predictions, references)):
        return {"pearson": math.nan, "spearman": math.nan}
    with warnings.catch_warnings():
        # scipy complains about nearly constant values; the number it gives says the same
        warnings.simplefilter("ignore")
        found: list[Any] = [pearsonr(predictions, references), spearmanr(predictions, references)]
    return {"pearson": float(found[0].statistic), "spearman": float(found[1].statistic)}


def _varies(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) for value in values) and min(values) != max(values)


PLUGIN = pearson_spearman
