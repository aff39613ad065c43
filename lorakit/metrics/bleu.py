"""BLEU of a corpus (Papineni et al. 2002) as sacrebleu computes it.

13a tokens, case counts, the closest reference length, and exponential smoothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.metrics._base import Facts, References, accepted_texts, metric
from lorakit.metrics._statistics import Sums

N = 4
PROTOCOL = "sacrebleu, 13a tokens, case counts"


@metric(Facts(of="texts", keys=("bleu",), printed=1.0, tokenizes=True, protocol=PROTOCOL))
def bleu(predictions: Sequence[str], references: References, tokenize: str = "13a") -> Sums:
    """In 0..100. Examples may have different numbers of references.

    An empty prediction has no n-grams and shortens the output, so the brevity penalty counts it.
    tokenize: one of sacrebleu's tokenizers.
    """
    return corpus_bleu(predictions, accepted_texts(references), tokenize=tokenize)


def corpus_bleu(
    predictions: Sequence[str], references: Sequence[list[str]], tokenize: str = "13a"
) -> Sums:
    """BLEU in 0..100 from lengths, matches and n-grams; case counts."""
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU

    # only the counts of a sentence are used; `force`: no warning where a text looks tokenised
    scorer = BLEU(force=True, effective_order=True, tokenize=tokenize)
    pairs = zip(predictions, references, strict=True)
    found = (scorer.sentence_score(prediction, accepted) for prediction, accepted in pairs)
    rows = ((s.sys_len, s.ref_len, *s.counts, *s.totals) for s in found)
    counts = np.fromiter(rows, np.dtype((np.int64, 2 + 2 * N)), len(predictions))
    return Sums("bleu", counts, _bleu)


def _bleu(sums: Sequence[float]) -> float:
    from sacrebleu.metrics.bleu import BLEU

    # sums with weights are whole numbers in floats, and sacrebleu takes integers
    length, reference_length, *counts = map(int, sums)
    score = BLEU.compute_bleu(counts[:N], counts[N:], length, reference_length, smooth_method="exp")
    return score.score


PLUGIN = bleu
