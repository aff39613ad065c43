"""Accuracy: the share of predictions that equal their reference."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.metrics._base import Facts, metric
from lorakit.metrics._weighted import Weighted, means


def weighted(predictions: Sequence[int], references: Sequence[int]) -> Weighted:
    return means(
        {"accuracy": [said == right for said, right in zip(predictions, references, strict=True)]}
    )


@metric(Facts(of="labels", keys=("accuracy",)), weighted)
def accuracy(predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
    """Fraction in 0..1."""
    from sklearn.metrics import accuracy_score

    return {"accuracy": float(accuracy_score(references, predictions))}


PLUGIN = accuracy
