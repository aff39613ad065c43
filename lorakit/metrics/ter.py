"""Translation edit rate (Snover et al. 2006) as pyter computes it: edits and shifts of phrases, per reference word.

    TER = mean over examples of min over references of (shifts + Levenshtein distance after them) / #(reference words)

A shift is chosen greedily while it shortens the distance. Other scorers (tercom, sacrebleu) add up edits over the
corpus and search differently: their values are another metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._bits import levenshtein, places
from lorakit.metrics._tokens import splitter
from lorakit.metrics._weighted import Weighted, means

PROTOCOL = "TER of pyter 0.3, mean over examples of the minimum over references, tokens between spaces, case counts"


def weighted(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], tokenize: str = "none"
) -> Weighted:
    return means({"ter": least(*_tokens(predictions, references, tokenize))})


@metric(
    Facts(
        of="texts",
        keys=("ter",),
        printed=1.0,
        lower=("ter",),
        tokenizes=True,
        slow=("ter",),
        protocol=PROTOCOL,
    ),
    weighted,
)
def ter(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], tokenize: str = "none"
) -> dict[str, float]:
    """From 0 (equal) up; it can exceed 1. Tokens are what stands between spaces, and case counts.

    Source: pyter3 0.3, which GenerationEval (commit 8067849) and the LoRA paper's code run for WebNLG and DART. An
    empty prediction costs 1, an empty reference as well, as there.
    """
    return {"ter": mean_of_least(*_tokens(predictions, references, tokenize))}


def _tokens(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], tokenize: str
) -> tuple[list[list[str]], list[list[list[str]]]]:
    split = str.split if tokenize == "none" else splitter(tokenize)
    return [split(text) for text in predictions], [
        [split(t) for t in texts] for texts in accepted_texts(references)
    ]


def mean_of_least(predictions: Sequence[list[str]], references: Sequence[list[list[str]]]) -> float:
    """The mean over examples of the smallest `edit_rate` over their references."""
    return sum(least(predictions, references)) / len(predictions)


def least(predictions: Sequence[list[str]], references: Sequence[list[list[str]]]) -> list[float]:
    """The smallest `edit_rate` of each example."""
    pairs = zip(predictions, references, strict=True)
    return [min(edit_rate(tokens, accepted) for accepted in texts) for tokens, texts in pairs]


def edit_rate(tokens: list[str], reference: list[str]) -> float:
    """Shifts and edits that turn tokens into the reference, per token of the reference; 1 where that is empty."""
    if not reference:
        return 1.0
    where, size, shifts = places(reference), len(reference), 0
    edits = levenshtein(where, size, tokens)
    while edits:
        moved = [
            (edits - levenshtein(where, size, other), other)
            for other in _shifted(tokens, reference)
        ]
        # of equal gains pyter takes the last in the order of the words
        gain, best = max(moved, default=(0, tokens))
        if gain <= 0:
            break
        tokens, edits, shifts = best, edits - gain, shifts + 1
    return (shifts + edits) / size


def _shifted(tokens: list[str], reference: list[str]) -> Iterator[list[str]]:
    """Each phrase that also stands in the reference, as long as it goes, moved to where it stands there."""
    for i, token in enumerate(tokens):
        for j, other in enumerate(reference):
            if token == other and i != j:
                end = i + _common_start(tokens[i:], reference[j:])
                rest = tokens[:i] + tokens[end:]
                yield rest[:j] + tokens[i:end] + rest[j:]


def _common_start(a: list[str], b: list[str]) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


PLUGIN = ter
