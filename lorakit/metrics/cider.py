"""CIDEr-D (Vedantam et al. 2015): the angle between the n-grams of an output and of a reference, rare ones first.

    weight of an n-gram = #(in the text) * ln(#examples / #(examples that have it in a reference))
    s_n = sum min(output, reference) * reference / (|output| |reference|)  *  exp(-(difference of lengths)^2 / 72)
    CIDEr = 10 * mean over examples, over their references, over n = 1..4

72 is twice the square of sigma = 6. A length is the number of bigrams, as in the official code.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._nlg_data import find
from lorakit.metrics._ptb import Tokens, tokenize
from lorakit.metrics._weighted import Weighted, means

N, SIGMA = 4, 6.0
PROTOCOL = "CIDEr-D of MS-COCO captions (e2e-metrics 1b9c4d8), idf from these references, tokens as for ROUGE-L"
Ngrams = Counter[tuple[str, ...]]


class _Vector(NamedTuple):
    weights: dict[tuple[str, ...], float]
    norms: list[float]
    length: int


OTHERWISE = "CIDEr is computed on approximate tokens, as cider_approx"


def weighted(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> Weighted:
    """What is rare stays as it is among all references."""
    tokens = tokenize(find(OTHERWISE), predictions, accepted_texts(references))
    return means({tokens.key("cider"): each_cider(tokens, times(tokens))})


@metric(Facts(of="texts", keys=("cider",), printed=1.0, protocol=PROTOCOL), weighted)
def cider(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> dict[str, float]:
    """In 0..10; `cider_approx` where pycocoevalcap is missing, with other tokens.

    What is rare is read off the references, so the value of an example depends on the others; that of a single one is
    0. Source: pycocoevalcap as e2e-metrics (commit 1b9c4d8) carries it. An empty prediction scores 0.
    """
    tokens = tokenize(find(OTHERWISE), predictions, accepted_texts(references))
    return {tokens.key("cider"): mean_cider(tokens)}


def mean_cider(tokens: Tokens) -> float:
    """In 0..10."""
    return sum(each_cider(tokens)) / len(tokens.predictions)


def times(tokens: Tokens) -> int:
    """2 where the references stand there twice, for the answers of two."""
    half, odd = divmod(len(tokens.references), 2)
    return 2 if not odd and tokens.references[:half] == tokens.references[half:] else 1


def each_cider(tokens: Tokens, least: int = 1) -> list[float]:
    """Of each example, what is rare read off all references. least: examples that an n-gram counts for, if in none."""
    references = [[_ngrams(text) for text in accepted] for accepted in tokens.references]
    examples: Ngrams = Counter()
    for accepted in references:
        examples.update(set().union(*accepted))
    found = []
    for prediction, accepted in zip(tokens.predictions, references, strict=True):
        output = _vector(_ngrams(prediction), examples, len(references), least)
        alike = [
            _alike(output, _vector(text, examples, len(references), least)) for text in accepted
        ]
        found.append(10 * sum(alike) / len(alike))
    return found


def _ngrams(tokens: list[str]) -> Ngrams:
    # the official code joins tokens, and splits again at every white space
    words = " ".join(tokens).split()
    return Counter(
        tuple(words[i : i + n]) for n in range(1, N + 1) for i in range(len(words) - n + 1)
    )


def _vector(ngrams: Ngrams, examples: Ngrams, count: int, least: int) -> _Vector:
    weights = {
        ngram: times * math.log(count / max(least, examples[ngram]))
        for ngram, times in ngrams.items()
    }
    squares = [0.0] * N
    for ngram, weight in weights.items():
        squares[len(ngram) - 1] += weight**2
    length = sum(times for ngram, times in ngrams.items() if len(ngram) == 2)
    return _Vector(weights, [math.sqrt(square) for square in squares], length)


def _alike(output: _Vector, reference: _Vector) -> float:
    """The mean of s_n."""
    products = [0.0] * N
    for ngram, weight in output.weights.items():
        other = reference.weights.get(ngram, 0.0)
        products[len(ngram) - 1] += min(weight, other) * other
    norms = [a * b for a, b in zip(output.norms, reference.norms, strict=True)]
    cosines = sum(product / norm for product, norm in zip(products, norms, strict=True) if norm)
    return cosines / N * math.exp(-((output.length - reference.length) ** 2) / (2 * SIGMA**2))


PLUGIN = cider
