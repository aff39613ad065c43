"""BLEU of a corpus (Papineni et al. 2002) as sacrebleu has it: 13a tokens, case counts, closest reference length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from lorakit.errors import DataError
from lorakit.metrics._base import Facts, metric


@metric(Facts(of="texts", keys=("bleu",), printed=1.0))
def bleu(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """In 0..100. Examples may have different numbers of references, and each has at least one (else: DataError)."""
    from sacrebleu.metrics.bleu import BLEU

    lists = [[accepted] if isinstance(accepted, str) else list(accepted) for accepted in references]
    if not all(lists):
        raise DataError(f"bleu: example {lists.index([])} has no reference")
    # a missing reference is None: the empty text would count as a reference of length 0 and lift the score
    streams = [list(stream) for stream in zip_longest(*lists)]
    # force: no complaint where the text happens to look tokenised
    return {"bleu": float(BLEU(force=True).corpus_score(list(predictions), streams).score)}


PLUGIN = bleu
