"""Accuracy: the share of predictions that equal their reference."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.metrics._base import Facts, metric


@metric(Facts(of="labels", keys=("accuracy",)))
def accuracy(predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
    """Fraction in 0..1."""
    from sklearn.metrics import accuracy_score

    return {"accuracy": float(accuracy_score(references, predictions))}


PLUGIN = accuracy
