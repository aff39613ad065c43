"""F1 of sets of labels: micro over all given labels, macro over the labels, and the share of
examples whose set is correct.

As scikit-learn's `f1_score` with `average="micro"` and `"macro"` over the labels that are given or
correct somewhere, and its `accuracy_score` (subset accuracy).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lorakit.metrics._base import Facts, metric
from lorakit.metrics._statistics import Means, Part, Suite, Sums

KEYS = ("micro_f1", "macro_f1", "subset_accuracy")


@metric(Facts(of="label sets", keys=KEYS))
def multilabel_f1(
    predictions: Sequence[Collection[int]], references: Sequence[Collection[int]]
) -> Suite:
    """Fractions in 0..1. F1 is 1 where no label is given and none is correct, as there is no
    mistake."""
    pairs = [(set(a), set(b)) for a, b in zip(predictions, references, strict=True)]
    labels = sorted({label for a, b in pairs for label in a | b})
    micro = [(len(a & b), len(a) + len(b)) for a, b in pairs]
    macro = [
        [count for label in labels for count in _counts(label, a, b)] or [0, 0] for a, b in pairs
    ]
    same = Means({"subset_accuracy": [a == b for a, b in pairs]})
    return Suite(
        [
            Part(("micro_f1",), lambda: Sums("micro_f1", micro, _mean_f1)),
            Part(("macro_f1",), lambda: Sums("macro_f1", macro, _mean_f1)),
            Part(("subset_accuracy",), lambda: same),
        ]
    )


def _counts(label: int, said: set[int], right: set[int]) -> tuple[int, int]:
    """Hits, and the positives of both sides together."""
    return int(label in said and label in right), (label in said) + (label in right)


def _mean_f1(sums: Sequence[float]) -> float:
    """The mean of the F1 of each pair of sums that is not empty."""
    each = [2 * h / n for h, n in zip(sums[::2], sums[1::2], strict=True) if n]
    return sum(each) / len(each) if each else 1.0


PLUGIN = multilabel_f1
