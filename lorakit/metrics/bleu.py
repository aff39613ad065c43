"""BLEU of a corpus (Papineni et al. 2002) as sacrebleu has it: 13a tokens, case counts, closest reference length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from lorakit.metrics._base import Facts, accepted_texts, metric


@metric(Facts(of="texts", keys=("bleu",), printed=1.0, protocol="sacrebleu, 13a tokens, case counts"))
def bleu(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """In 0..100. Examples may have different numbers of references, and each has at least one (else: DataError).

    An empty prediction has no n-grams and shortens the output, so the brevity penalty counts it."""
    return {"bleu": corpus_bleu(predictions, accepted_texts(references))}


def corpus_bleu(predictions: Sequence[str], references: list[list[str]], lowercase: bool = False) -> float:
    """In 0..100, with 13a tokens; lowercase: case is ignored."""
    from sacrebleu.metrics.bleu import BLEU

    # a missing reference is None: the empty text would count as a reference of length 0 and lift the score
    streams = [list(stream) for stream in zip_longest(*references)]
    # force: no complaint where the text happens to look tokenised
    return float(BLEU(lowercase=lowercase, force=True).corpus_score(list(predictions), streams).score)


PLUGIN = bleu
