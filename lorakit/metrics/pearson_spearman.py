"""Pearson's correlation of the values and Spearman's correlation of their ranks, what GLUE scores STS-B with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from lorakit.metrics._base import Facts, metric


@metric(Facts(of="numbers", keys=("pearson", "spearman")))
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
