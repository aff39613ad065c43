"""Matthews correlation: Pearson's correlation of two labellings, what GLUE scores CoLA with."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.metrics._base import Facts, metric


@metric(Facts(of="labels", keys=("matthews_correlation",)))
def matthews(predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
    """In -1..1; 0 where one side holds a single class."""
    from sklearn.metrics import matthews_corrcoef

    # scikit-learn gives 0 here as well, but warns
    if len({*predictions, *references}) == 1:
        return {"matthews_correlation": 0.0}
    return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}


PLUGIN = matthews
