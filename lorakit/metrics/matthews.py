"""Matthews correlation: Pearson's correlation of two labellings, as GLUE scores CoLA.

For any number of classes (Gorodkin 2004, R_K).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lorakit.metrics._base import Facts, metric
from lorakit.metrics._class_counts import ClassCounts, ClassSums, class_sums


@metric(Facts(of="labels", keys=("matthews_correlation",)))
def matthews(predictions: Sequence[int], references: Sequence[int]) -> ClassSums:
    """In -1..1; 0 where one side has a single class."""
    return class_sums("matthews_correlation", predictions, references, _correlation)


def _correlation(classes: Sequence[ClassCounts]) -> float:
    hits = sum(hit for hit, _, _ in classes)
    n = sum(predicted for _, predicted, _ in classes)
    covariance = hits * n - sum(predicted * present for _, predicted, present in classes)
    variance_of_predicted = n**2 - sum(predicted**2 for _, predicted, _ in classes)
    variance_of_present = n**2 - sum(present**2 for _, _, present in classes)
    variances = variance_of_predicted * variance_of_present
    return covariance / math.sqrt(variances) if variances else 0.0


PLUGIN = matthews
