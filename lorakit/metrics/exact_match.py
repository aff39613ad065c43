"""Exact match: the share of texts that equal their reference, or one of several, to the character."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.metrics._base import Facts, metric


@metric(Facts(of="texts", keys=("exact_match",)))
def exact_match(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """Fraction in 0..1; case, spaces and punctuation count."""
    hits = 0
    for prediction, accepted in zip(predictions, references, strict=True):
        hits += prediction in ((accepted,) if isinstance(accepted, str) else accepted)
    return {"exact_match": hits / len(predictions)}


PLUGIN = exact_match
