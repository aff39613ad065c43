"""F1 of entities (CoNLL-2003): an entity counts where its type and all its words are correct.

As seqeval's `f1_score`, `precision_score` and `recall_score` in the default mode: micro, over the
entities of all sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lorakit.metrics._base import Facts, metric
from lorakit.metrics._entities import entities, padded
from lorakit.metrics._statistics import Part, Suite, Sums

KEYS = ("entity_f1", "entity_precision", "entity_recall")


@metric(Facts(of="tags", keys=KEYS, protocol="conlleval's entities, as seqeval 1.2.2 reads them"))
def entity_f1(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Suite:
    """Fractions in 0..1; 0 where no entity is found or none is there."""
    counts = []
    for said, right in zip(predictions, references, strict=True):
        found = set(entities(padded(said, right)))
        wanted = set(entities(right))
        counts.append((len(found & wanted), len(found), len(wanted)))
    return Suite([_part(key, counts, value) for key, value in zip(KEYS, VALUES, strict=True)])


def _part(
    key: str, counts: Sequence[Sequence[float]], value: Callable[[Sequence[float]], float]
) -> Part:
    return Part((key,), lambda: Sums(key, counts, value))


def _f1(sums: Sequence[float]) -> float:
    return _share(2 * sums[0], sums[1] + sums[2])


def _precision(sums: Sequence[float]) -> float:
    return _share(sums[0], sums[1])


def _recall(sums: Sequence[float]) -> float:
    return _share(sums[0], sums[2])


def _share(part: float, of: float) -> float:
    return part / of if of else 0.0


VALUES = (_f1, _precision, _recall)

PLUGIN = entity_f1
