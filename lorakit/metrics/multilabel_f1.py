"""F1 of sets of labels: micro over all given labels, macro over the labels, and the share of
examples whose set is correct.

As scikit-learn's `f1_score` with `average="micro"` and `"macro"` over the labels that are given or
correct somewhere, and its `accuracy_score` (subset accuracy).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lorakit.metrics._base import Facts, metric
from lorakit.metrics._class_counts import ClassCounts, ClassSums, f1_of
from lorakit.metrics._statistics import Means, Part, Suite, Sums

KEYS = ("micro_f1", "macro_f1", "subset_accuracy")


@metric(Facts(of="label sets", keys=KEYS))
def multilabel_f1(
    predictions: Sequence[Collection[int]], references: Sequence[Collection[int]]
) -> Suite:
    """Fractions in 0..1. F1 is 1 where no label is given and none is correct, as there is no
    mistake."""
    said = list(map(set, predictions))
    right = list(map(set, references))
    pairs = list(zip(said, right, strict=True))
    micro = [(len(a & b), len(a) + len(b)) for a, b in pairs]
    same = Means({"subset_accuracy": [a == b for a, b in pairs]})
    return Suite(
        [
            Part(("micro_f1",), lambda: Sums("micro_f1", micro, _micro)),
            Part(("macro_f1",), lambda: ClassSums("macro_f1", said, right, _macro)),
            Part(("subset_accuracy",), lambda: same),
        ]
    )


def _micro(sums: Sequence[float]) -> float:
    """From the hits, and the positives of both sides together."""
    hits, positives = sums
    return 2 * hits / positives if positives else 1.0


def _macro(classes: Sequence[ClassCounts]) -> float:
    return sum(f1_of(*counts) for counts in classes) / len(classes) if classes else 1.0


PLUGIN = multilabel_f1
