"""Exact match: the share of texts that equal their reference, or one of several, to the character."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._weighted import Weighted, means


def hits(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> list[bool]:
    """Of each example."""
    return [
        said in accepted
        for said, accepted in zip(predictions, accepted_texts(references), strict=True)
    ]


def weighted(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> Weighted:
    return means({"exact_match": hits(predictions, references)})


@metric(Facts(of="texts", keys=("exact_match",)), weighted)
def exact_match(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> dict[str, float]:
    """Fraction in 0..1; case, spaces and punctuation count."""
    return {"exact_match": sum(hits(predictions, references)) / len(predictions)}


PLUGIN = exact_match
