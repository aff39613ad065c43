"""ROUGE-L as MS-COCO captions are scored with it: the longest common subsequence (LCS) with an output, over tokens.

    P = max over references of LCS / #output,    R = max over references of LCS / #reference
    F = (1 + beta^2) P R / (R + beta^2 P),       beta = 1.2;  the mean over examples

P and R may come from different references. The ROUGE of summaries (rouge-score) takes the best F with beta 1 instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._bits import common_subsequence
from lorakit.metrics._nlg_data import find
from lorakit.metrics._ptb import Tokens, tokenize
from lorakit.metrics._weighted import Weighted, means

BETA = 1.2
PROTOCOL = "ROUGE-L of MS-COCO captions (e2e-metrics 1b9c4d8), CoreNLP 3.4.1 tokens, lower-cased, no punctuation"


OTHERWISE = "ROUGE-L is computed on approximate tokens, as rouge_l_approx"


def weighted(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> Weighted:
    tokens = tokenize(find(OTHERWISE), predictions, accepted_texts(references))
    return means({tokens.key("rouge_l"): each_rouge_l(tokens)})


@metric(Facts(of="texts", keys=("rouge_l",), protocol=PROTOCOL), weighted)
def rouge_l(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> dict[str, float]:
    """Fraction in 0..1; `rouge_l_approx` where pycocoevalcap is missing, with other tokens.

    Source: pycocoevalcap (Chen et al. 2015) as e2e-metrics (commit 1b9c4d8) carries it. An empty prediction is one
    empty token: 0, or 1 beside an empty reference.
    """
    tokens = tokenize(find(OTHERWISE), predictions, accepted_texts(references))
    return {tokens.key("rouge_l"): mean_rouge_l(tokens)}


def mean_rouge_l(tokens: Tokens) -> float:
    """Fraction in 0..1."""
    return sum(each_rouge_l(tokens)) / len(tokens.predictions)


def each_rouge_l(tokens: Tokens) -> list[float]:
    """Of each example."""
    pairs = zip(tokens.predictions, tokens.references, strict=True)
    return [
        _best(output or [""], [text or [""] for text in accepted]) for output, accepted in pairs
    ]


def _best(output: list[str], references: list[list[str]]) -> float:
    common = [common_subsequence(output, text) for text in references]
    precision = max(common) / len(output)
    recall = max(n / len(text) for n, text in zip(common, references, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if precision else 0.0


PLUGIN = rouge_l
