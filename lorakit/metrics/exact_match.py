"""Exact match: the share of texts that equal their reference, or one of several references."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.metrics._base import Facts, References, accepted_texts, metric
from lorakit.metrics._statistics import Means


@metric(Facts(of="texts", keys=("exact_match",)))
def exact_match(predictions: Sequence[str], references: References) -> Means:
    """Fraction in 0..1; case, spaces and punctuation count."""
    pairs = zip(predictions, accepted_texts(references), strict=True)
    return Means({"exact_match": [prediction in accepted for prediction, accepted in pairs]})


PLUGIN = exact_match
