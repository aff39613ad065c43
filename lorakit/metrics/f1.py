"""F1 = 2 P R / (P + R) of class 1, with precision P and recall R. For two classes, as GLUE scores MRPC and QQP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorakit.errors import DataError
from lorakit.metrics._base import Facts, metric
from lorakit.metrics._weighted import Weighted, of_sums

if TYPE_CHECKING:
    from numpy import ndarray


def weighted(predictions: Sequence[int], references: Sequence[int]) -> Weighted:
    each = [
        (said == right == 1, (said == 1) + (right == 1))
        for said, right in zip(predictions, references, strict=True)
    ]
    return of_sums(each, _score)


def _score(sums: ndarray) -> dict[str, ndarray]:
    """From true positives, and positives of both sides."""
    import numpy as np

    hits, positives = sums.T
    return {"f1": np.where(positives > 0, 2 * hits / positives, 0.0)}


@metric(Facts(of="labels", keys=("f1",), classes=2), weighted)
def f1(predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
    """Fraction in 0..1; 0 where class 1 is neither predicted nor present. DataError: a label that is not 0 or 1."""
    from sklearn.metrics import f1_score

    foreign = sorted({*predictions, *references} - {0, 1})
    if foreign:
        raise DataError(
            f"f1 knows the labels 0 and 1 only, and was given {foreign[:5]}; for more classes take accuracy"
        )
    return {"f1": float(f1_score(references, predictions, pos_label=1, zero_division=0))}  # type: ignore[arg-type]


PLUGIN = f1
