"""Matthews correlation: Pearson's correlation of two labellings, as GLUE scores CoLA.

For any number of classes (Gorodkin 2004, R_K).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from lorakit.metrics._base import Facts, metric
from lorakit.metrics._statistics import Sums


@metric(Facts(of="labels", keys=("matthews_correlation",)))
def matthews(predictions: Sequence[int], references: Sequence[int]) -> Sums:
    """In -1..1; 0 where one side has a single class."""
    # not only those of the references: a prediction may be a class that none of them has
    classes = sorted({*predictions, *references})
    counts = [
        [said == right, *(said == c for c in classes), *(right == c for c in classes)]
        for said, right in zip(predictions, references, strict=True)
    ]
    return Sums("matthews_correlation", counts, _correlation)


def _correlation(sums: Sequence[float]) -> float:
    """From the hits, how often each class was predicted, and how often it is the reference."""
    hits, *counts = sums
    classes = len(counts) // 2
    predicted, present = counts[:classes], counts[classes:]
    n = sum(predicted)
    covariance = hits * n - _product(predicted, present)
    variances = (n**2 - _product(predicted, predicted)) * (n**2 - _product(present, present))
    return covariance / math.sqrt(variances) if variances else 0.0


def _product(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(map(mul, a, b))


PLUGIN = matthews
