"""METEOR 1.5 (Denkowski and Lavie 2014): words aligned by form, stem, synonym and paraphrase.

The value is that of the authors' program to 1e-9, from its own tables, which the package
pycocoevalcap carries; nothing stands in for it where they are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._meteor_match import text
from lorakit.metrics._meteor_score import Counts, added, best_counts, score
from lorakit.metrics._meteor_tables import paraphrases, tables
from lorakit.metrics._meteor_words import words
from lorakit.metrics._nlg_data import Data, find
from lorakit.metrics._ptb import tokenize
from lorakit.metrics._weighted import Weighted, joined, of_sums

if TYPE_CHECKING:
    from numpy import ndarray

_CALLED = "meteor-1.5.jar -l en -norm"
PROTOCOL = f"METEOR 1.5 ({_CALLED}) on CoreNLP 3.4.1 tokens, lower-cased, no punctuation"
Outputs = Sequence[list[str]]
References = Sequence[list[list[str]]]
_OTHERWISE = "METEOR is left out"
# examples whose paraphrases are looked up at once
_BATCH = 1000


def weighted(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> Weighted:
    data = find(_OTHERWISE)
    if data is None:
        return joined()
    tokens = tokenize(data, predictions, accepted_texts(references))
    return weighted_meteor(data, tokens.predictions, tokens.references)


@metric(Facts(of="texts", keys=("meteor",), slow=("meteor",), protocol=PROTOCOL), weighted)
def meteor(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> dict[str, float]:
    """Fraction in 0..1 over the corpus; nothing where pycocoevalcap is missing.

    Source: METEOR 1.5 as MS-COCO captions and e2e-metrics (commit 1b9c4d8) call it. An example's
    best reference counts. An empty prediction matches nothing, and its reference's words count as
    missed. The first call of a process reads five million paraphrases, in about 5 seconds."""
    data = find(_OTHERWISE)
    if data is None:
        return {}
    tokens = tokenize(data, predictions, accepted_texts(references))
    return {"meteor": corpus_meteor(data, tokens.predictions, tokens.references)}


def corpus_meteor(data: Data, predictions: Outputs, references: References) -> float:
    """Fraction in 0..1. DataError: the data cannot be read."""
    columns = zip(*_each(data, predictions, references), strict=True)
    return score([sum(column) for column in columns])


def weighted_meteor(data: Data, predictions: Outputs, references: References) -> Weighted:
    """The value of the summed counts of a resample."""
    return of_sums(list(_each(data, predictions, references)), _scores)


def _scores(sums: ndarray) -> dict[str, ndarray]:
    import numpy as np

    return {"meteor": np.array([score(row) for row in sums.tolist()])}


def _each(data: Data, predictions: Outputs, references: References) -> Iterator[Counts]:
    """What each example adds to the counts of the corpus."""
    known, phrases = tables(data), paraphrases(data)
    examples = zip(predictions, references, strict=True)
    while batch := list(islice(examples, _BATCH)):
        texts = [
            [text(words(_line(tokens), known.abbreviations), known) for tokens in (said, *accepted)]
            for said, accepted in batch
        ]
        places = (at for example in texts for one in example for at in one.phrases)
        related = phrases.among({phrase for at in places for phrase in at})
        for output, *accepted in texts:
            yield added(best_counts(output, accepted, related))


def _line(tokens: list[str]) -> str:
    """As the official wrappers hand a text over: bars would be read as its end."""
    return " ".join(tokens).encode(errors="replace").decode().replace("|||", "").replace("  ", " ")


PLUGIN = meteor
