"""Matthews correlation: Pearson's correlation of two labellings, what GLUE scores CoLA with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorakit.metrics._base import Facts, metric
from lorakit.metrics._weighted import Weighted, of_sums

if TYPE_CHECKING:
    from numpy import ndarray


def weighted(predictions: Sequence[int], references: Sequence[int]) -> Weighted:
    classes = sorted({*predictions, *references})
    each = [
        [said == right, *(said == c for c in classes), *(right == c for c in classes)]
        for said, right in zip(predictions, references, strict=True)
    ]
    return of_sums(each, lambda sums: _score(sums[:, 0], *_halves(sums[:, 1:])))


def _halves(columns: ndarray) -> tuple[ndarray, ndarray]:
    middle = columns.shape[1] // 2
    return columns[:, :middle], columns[:, middle:]


def _score(hits: ndarray, said: ndarray, right: ndarray) -> dict[str, ndarray]:
    """From the number of hits, and how often each class was said, and was right (Gorodkin 2004, for any classes)."""
    import numpy as np

    n = said.sum(1)
    together = n * hits - (said * right).sum(1)
    spread = (n**2 - (said**2).sum(1)) * (n**2 - (right**2).sum(1))
    return {"matthews_correlation": np.where(spread > 0, together / np.sqrt(spread), 0.0)}


@metric(Facts(of="labels", keys=("matthews_correlation",)), weighted)
def matthews(predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
    """In -1..1; 0 where one side holds a single class."""
    from sklearn.metrics import matthews_corrcoef

    # scikit-learn gives 0 here as well, but warns
    if len({*predictions, *references}) == 1:
        return {"matthews_correlation": 0.0}
    return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}


PLUGIN = matthews
