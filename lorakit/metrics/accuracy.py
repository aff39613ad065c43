"""Accuracy: the share of predictions that equal their reference."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.metrics._base import Facts, metric
from lorakit.metrics._statistics import Means


@metric(Facts(of="labels", keys=("accuracy",)))
def accuracy(predictions: Sequence[int], references: Sequence[int]) -> Means:
    """Fraction in 0..1."""
    pairs = zip(predictions, references, strict=True)
    return Means({"accuracy": [prediction == reference for prediction, reference in pairs]})


PLUGIN = accuracy
