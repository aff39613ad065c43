"""BLEU of a corpus (Papineni et al. 2002) as sacrebleu has it: 13a tokens, case counts, closest reference length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._weighted import Weighted, of_sums

if TYPE_CHECKING:
    from numpy import ndarray

N = 4


def weighted(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], tokenize: str = "13a"
) -> Weighted:
    return weighted_bleu(predictions, accepted_texts(references), tokenize=tokenize)


def weighted_bleu(
    predictions: Sequence[str],
    references: list[list[str]],
    lowercase: bool = False,
    tokenize: str = "13a",
) -> Weighted:
    """`corpus_bleu` from the lengths and the n-grams of each sentence."""
    from sacrebleu.metrics.bleu import BLEU

    # of its sentences only the counts are used
    scorer = BLEU(lowercase=lowercase, force=True, effective_order=True, tokenize=tokenize)
    found = [
        scorer.sentence_score(said, accepted)
        for said, accepted in zip(predictions, references, strict=True)
    ]
    return of_sums([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in found], _score)


def _score(sums: ndarray) -> dict[str, ndarray]:
    """As sacrebleu computes it, the n of which nothing matches smoothed by halves (`exp`)."""
    import numpy as np

    length, wanted, matches, totals = sums[:, 0], sums[:, 1], sums[:, 2 : 2 + N], sums[:, 2 + N :]
    none = matches == 0
    logs = np.log(np.where(none, 1.0, matches) / totals) - np.log(2) * np.where(
        none, np.cumsum(none, axis=1), 0
    )
    value = 100 * np.exp(logs.mean(1) + np.minimum(0, 1 - wanted / length))
    return {"bleu": np.where((totals == 0).any(1) | none.all(1), 0.0, value)}


PROTOCOL = "sacrebleu, 13a tokens, case counts"


@metric(Facts(of="texts", keys=("bleu",), printed=1.0, tokenizes=True, protocol=PROTOCOL), weighted)
def bleu(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], tokenize: str = "13a"
) -> dict[str, float]:
    """In 0..100. Examples may have different numbers of references, and each has at least one (else: DataError).

    An empty prediction has no n-grams and shortens the output, so the brevity penalty counts it."""
    return {"bleu": corpus_bleu(predictions, accepted_texts(references), tokenize=tokenize)}


def corpus_bleu(
    predictions: Sequence[str],
    references: list[list[str]],
    lowercase: bool = False,
    tokenize: str = "13a",
) -> float:
    """In 0..100; lowercase: case is ignored. tokenize: one of sacrebleu's tokenizers."""
    from sacrebleu.metrics.bleu import BLEU

    # a missing reference is None: the empty text would count as a reference of length 0 and lift the score
    streams = [list(stream) for stream in zip_longest(*references)]
    # force: no complaint where the text happens to look tokenised
    scorer = BLEU(lowercase=lowercase, force=True, tokenize=tokenize)
    return float(scorer.corpus_score(list(predictions), streams).score)


PLUGIN = bleu
