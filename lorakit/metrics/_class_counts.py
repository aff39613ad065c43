"""Counts of classes: what metrics over classes are computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lorakit.metrics._statistics import Sums

Average = Callable[[Sequence[tuple[float, float, float]]], float]
"""From (hits, predicted, present) of each class that is predicted or present to the metric."""


def class_sums(
    key: str, predictions: Sequence[int], references: Sequence[int], average: Average
) -> Sums:
    """The statistics of a metric over the classes of both sides."""
    classes = sorted({*predictions, *references})
    counts = [
        [
            count
            for label in classes
            for count in (said == right == label, said == label, right == label)
        ]
        for said, right in zip(predictions, references, strict=True)
    ]

    def value(sums: Sequence[float]) -> float:
        each = zip(sums[::3], sums[1::3], sums[2::3], strict=True)
        # resampled examples may not have a class at all
        return average([one for one in each if one[1] + one[2]])

    return Sums(key, counts, value)


def f1_of(hits: float, predicted: float, present: float) -> float:
    """2 P R / (P + R), from counts."""
    return 2 * hits / (predicted + present)
