"""BLEU-4 of e2e-metrics with `-p`, which differs from sacrebleu's where an output is very short.

A text of no words counts as one empty token, and an output of L tokens adds L - n + 1 n-grams even
where that is negative. An n without any match counts as 1e-15 matches instead of being smoothed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from lorakit.metrics._statistics import Sums
from lorakit.metrics._tokens import Ngrams, count_ngrams, say_once

N = 4
NO_MATCH = 1e-15
NO_NGRAM = 1e-9


def mteval_tokens(text: str) -> list[str]:
    """Tokens of mteval-v13a in lower case; `[""]` for a text without any."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    # lower case comes last, as in the official script: entities are replaced before it
    return Tokenizer13a()(text).lower().split(" ")


def corpus_mteval_bleu(predictions: Sequence[str], references: Sequence[list[str]]) -> Sums:
    """BLEU in 0..100, with the case ignored and the closest reference length.

    Where many outputs are short, it can be above 100, as in the official script; a warning says
    how many are. Source: e2e-metrics (commit 1b9c4d8), `measure_scores.py -p`.
    """
    counts = [
        _counts(mteval_tokens(prediction), [mteval_tokens(text) for text in accepted])
        for prediction, accepted in zip(predictions, references, strict=True)
    ]
    short = sum(row[2 * N - 1] < 0 for row in counts)
    if short:
        say_once(
            f"e2e_metrics: {short} of {len(counts)} outputs have fewer than {N - 1} tokens, for "
            "which the official script takes n-grams away: BLEU is higher than the texts deserve"
        )
    return Sums("bleu", counts, _bleu)


def _counts(output: list[str], texts: list[list[str]]) -> list[int]:
    """Matches for n = 1..4, n-grams for n = 1..4, and the length of the closest reference."""
    most: Ngrams = Counter()
    for text in texts:
        most |= count_ngrams(text, N)
    matches = [0] * N
    for ngram, times in (count_ngrams(output, N) & most).items():
        matches[len(ngram) - 1] += times
    lengths = [len(text) for text in texts]
    closest = min(lengths, key=lambda length: (abs(length - len(output)), length))
    return [*matches, *(len(output) - n for n in range(N)), closest]


def _bleu(sums: Sequence[float]) -> float:
    *by_order, reference_length = sums
    matches, ngrams = by_order[:N], by_order[N:]
    # without any example, which a resample of a small group can be
    if not ngrams[0]:
        return math.nan
    logs = [
        math.log(max(found, NO_MATCH) / max(total, NO_NGRAM))
        for found, total in zip(matches, ngrams, strict=True)
    ]
    penalty = math.exp(min(0.0, 1 - reference_length / ngrams[0]))
    return 100 * penalty * math.exp(sum(logs) / N)
