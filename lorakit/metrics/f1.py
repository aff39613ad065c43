"""F1 = 2 P R / (P + R) of class 1, with precision P and recall R. For two classes, as GLUE scores MRPC and QQP."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.errors import DataError
from lorakit.metrics._base import Facts, metric


@metric(Facts(of="labels", keys=("f1",), classes=2))
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
