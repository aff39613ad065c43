"""A metric where each example counts a number of times, for many such numbers at once: what resampling needs.

Most metrics are functions of sums over the examples (hits, n-grams that match, a table of confusion), so that ten
thousand resamples are one product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray

Weighted = Callable[["ndarray"], dict[str, "ndarray"]]
"""How often each example counts (resamples, examples) -> key -> (resamples,). With ones it is the metric itself."""


def means(values: Mapping[str, Sequence[float]]) -> Weighted:
    """Of metrics that are means over the examples; values: key -> the value of each example."""
    import numpy as np

    columns = np.array(list(values.values()), dtype=float).T

    def weighted(weights: ndarray) -> dict[str, ndarray]:
        with np.errstate(invalid="ignore"):
            return dict(
                zip(values, (weights @ columns / weights.sum(1, keepdims=True)).T, strict=True)
            )

    return weighted


def of_sums(
    each: Sequence[Sequence[float]], score: Callable[[ndarray], dict[str, ndarray]]
) -> Weighted:
    """Of metrics that are functions of sums. each: (examples, k); score: from sums (resamples, k)."""
    import numpy as np

    columns = np.array(each, dtype=float)

    def weighted(weights: ndarray) -> dict[str, ndarray]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return score(weights @ columns)

    return weighted


def joined(*parts: tuple[Weighted, float]) -> Weighted:
    """Several as one, the values of each times its factor."""

    def weighted(weights: ndarray) -> dict[str, ndarray]:
        return {
            key: value * factor for part, factor in parts for key, value in part(weights).items()
        }

    return weighted
