"""NIST (Doddington 2002) with n-grams up to 5: matches count by how much an n-gram tells, as e2e-metrics computes it.

    info(w1..wn) = log2( #(w1..wn-1) / #(w1..wn) )              counts over all references; #() is their words
    NIST = sum_n  sum(info of matches) / #(n-grams of the output)  *  exp(-beta ln^2 min(1, L_out / L_ref))

beta makes the second factor 1/2 at two thirds of the length; L_ref adds up the mean length of the references of each
example. An n-gram matches at most as often as it stands in any one reference.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._weighted import Weighted, of_sums

N = 5
BETA = -math.log(0.5) / math.log(1.5) ** 2
PROTOCOL = "NIST-5 of e2e-metrics (1b9c4d8) with -p, mteval-v13a tokens, lower-cased"

if TYPE_CHECKING:
    from numpy import ndarray


def weighted(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> Weighted:
    """How much an n-gram tells stays as it is among all references."""
    return weighted_nist(predictions, accepted_texts(references))


def weighted_nist(predictions: Sequence[str], references: list[list[str]]) -> Weighted:
    return of_sums(_each(predictions, references), _score)


def _score(sums: ndarray) -> dict[str, ndarray]:
    import numpy as np

    gains, totals, length, wanted = sums[:, :N], sums[:, N : 2 * N], sums[:, -2], sums[:, -1]
    value = np.where(totals == 0, 0.0, gains / totals).sum(1)
    return {"nist": value * np.exp(-BETA * np.log(np.minimum(1.0, length / wanted)) ** 2)}


@metric(Facts(of="texts", keys=("nist",), printed=1.0, protocol=PROTOCOL), weighted)
def nist(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """From 0 up; what right answers get depends on the references.

    Source: e2e-metrics (commit 1b9c4d8), `measure_scores.py -p`, which the LoRA paper's code runs. Its default, a Perl
    script, takes another L_ref and gives up to 0.3 more where the numbers of references differ. An empty text counts
    as one empty token, and an output shorter than n - 1 as a negative number of n-grams, as there. An n of which there
    are 0 n-grams in all adds nothing; the official script divides by zero.
    """
    return {"nist": corpus_nist(predictions, accepted_texts(references))}


def corpus_nist(predictions: Sequence[str], references: list[list[str]]) -> float:
    """From 0 up."""
    *sums, length, reference_length = map(sum, zip(*_each(predictions, references), strict=True))
    value = sum(gain / total for gain, total in zip(sums[:N], sums[N:], strict=True) if total)
    return value * math.exp(-BETA * math.log(min(1.0, length / reference_length)) ** 2)


def _each(predictions: Sequence[str], references: list[list[str]]) -> list[list[float]]:
    """Of each example, for n = 1..5 what its matches tell, for n = 1..5 its n-grams, L_out, and L_ref."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    split = Tokenizer13a()
    counts: Counter[tuple[str, ...]] = Counter()
    found: list[tuple[Counter[tuple[str, ...]], int, float]] = []
    for prediction, accepted in zip(predictions, references, strict=True):
        output, *texts = [split(text).lower().split(" ") for text in (prediction, *accepted)]
        most: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            ngrams = _ngrams(text)
            counts.update(ngrams)
            most |= ngrams
        words = sum(map(len, texts))
        counts[()] += words
        found.append((_ngrams(output) & most, len(output), words / len(texts)))
    return [
        [*_gains(matches, counts), *(length - n for n in range(N)), length, wanted]
        for matches, length, wanted in found
    ]


def _gains(matches: Counter[tuple[str, ...]], counts: Counter[tuple[str, ...]]) -> list[float]:
    gains = [0.0] * N
    for ngram, times in matches.items():
        gains[len(ngram) - 1] += times * math.log2(counts[ngram[:-1]] / counts[ngram])
    return gains


def _ngrams(tokens: list[str]) -> Counter[tuple[str, ...]]:
    return Counter(
        tuple(tokens[i : i + n]) for n in range(1, N + 1) for i in range(len(tokens) - n + 1)
    )


PLUGIN = nist
