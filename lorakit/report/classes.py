"""Classes: the score of each class, which classes are taken for which, and the confusion matrix.

Precision, recall and F1 are those of scikit-learn's `classification_report`, 0 where they are not
defined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorakit.report.heat import Scale, heat_map
from lorakit.report.picture import Picture
from lorakit.report.table import Table, number

MAX_MATRIX = 30
"""Classes up to which the matrix is drawn; with more, the mistakes are shown as a table only."""
MAX_MISTAKES = 10

Pair = tuple[str, str]
"""(correct label, predicted label)"""


@dataclass(frozen=True)
class ClassReport:
    """What a page shows of a classification."""

    scores: Table
    mistakes: Table | None
    matrix: list[Picture]
    only: str | None
    """The label that was predicted for every example, where the examples have several labels."""


def class_report(lines: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> ClassReport | None:
    """The report on lines of predictions.jsonl; None: they are not predictions of these labels.

    A line may have lists of labels: in that case there is no matrix.
    """
    pairs = [_labels_of(line) for line in lines]
    if not labels or not pairs or not all(_known(pair, labels) for pair in pairs):
        return None
    counts = {label: _counts(label, pairs) for label in labels}
    scores = _score_table({label: found for label, found in counts.items() if any(found)})
    if not all(len(right) == len(said) == 1 for right, said in pairs):
        return ClassReport(scores, None, [], None)
    confused = Counter((right[0], said[0]) for right, said in pairs)
    predicted = {said for _, said in confused}
    present = {right for right, _ in confused}
    return ClassReport(
        scores=scores,
        mistakes=_mistakes(confused),
        matrix=_matrix(confused, [label for label in labels if any(counts[label])]),
        only=min(predicted) if len(predicted) == 1 < len(present) else None,
    )


def _labels_of(line: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """The correct and the predicted labels of a line."""
    right = line.get("references", line.get("reference"))
    said = line.get("prediction")
    return _as_list(right), _as_list(said)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _known(pair: tuple[list[Any], list[Any]], labels: Sequence[str]) -> bool:
    return all(label in labels for label in (*pair[0], *pair[1]))


def _counts(label: str, pairs: Sequence[tuple[list[str], list[str]]]) -> tuple[int, int, int]:
    """(hits, predicted, present)"""
    has = [(label in right, label in said) for right, said in pairs]
    return (
        sum(right and said for right, said in has),
        sum(said for _, said in has),
        sum(right for right, _ in has),
    )


def _score_table(counts: Mapping[str, tuple[int, int, int]]) -> Table:
    """A row for each class, and the means over the classes, plain and weighted by `rows`."""
    scored = {label: _scores(*found) for label, found in counts.items()}
    rows = [
        (label, *(number(100 * value) for value in values), f"{present:,}", f"{predicted:,}")
        for (label, values), (_, predicted, present) in zip(
            scored.items(), counts.values(), strict=True
        )
    ]
    present = [found[2] for found in counts.values()]
    total = sum(present)
    said = sum(found[1] for found in counts.values())
    for name, weights in (("macro", [1] * len(counts)), ("weighted", present)):
        means = [
            sum(w * value for w, value in zip(weights, column, strict=True)) / max(sum(weights), 1)
            for column in zip(*scored.values(), strict=True)
        ]
        cells = (number(100 * mean) for mean in means)
        rows.append((f"mean, {name}", *cells, f"{total:,}", f"{said:,}"))
    header = ("label", "precision", "recall", "F1", "rows", "predicted")
    return Table(header, tuple(rows))


def _scores(hits: int, predicted: int, present: int) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    precision = hits / predicted if predicted else 0.0
    recall = hits / present if present else 0.0
    return precision, recall, 2 * hits / (predicted + present)


def _mistakes(confused: Mapping[Pair, int]) -> Table | None:
    """The most frequent pairs of a correct and another predicted label."""
    wrong = [(pair, count) for pair, count in confused.items() if pair[0] != pair[1]]
    if not wrong:
        return None
    shown = sorted(wrong, key=lambda one: -one[1])[:MAX_MISTAKES]
    rows = tuple((right, said, f"{count:,}") for (right, said), count in shown)
    return Table(("correct", "predicted", "times"), rows, names=2)


def _matrix(confused: Mapping[Pair, int], labels: Sequence[str]) -> list[Picture]:
    if len(labels) > MAX_MATRIX:
        return []
    cells = {
        (right, said): float(confused.get((right, said), 0)) for right in labels for said in labels
    }
    scale = Scale(colors="Blues", low=0.0, high=max(cells.values()), form=".0f")
    axes = ("predicted label", "correct label")
    return [heat_map(cells, axes, "examples", "Confusion matrix", scale)]
