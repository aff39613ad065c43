"""BLEU, METEOR and TER of WebNLG and DART as the LoRA paper's code computes them: both sides lower-cased and split at
all that is no letter, digit or underscore, at most six references, then GenerationEval."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lorakit.metrics._attempt import attempt
from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._nlg_data import find
from lorakit.metrics._weighted import Weighted, joined, means
from lorakit.metrics.bleu import corpus_bleu, weighted_bleu
from lorakit.metrics.meteor import corpus_meteor, weighted_meteor
from lorakit.metrics.ter import least, mean_of_least

REFERENCES = 6
_OTHERWISE = "METEOR is left out"
PROTOCOL = (
    "LoRA (c4593f0) and GenerationEval (8067849), eval.py -nr 6: lower-cased, split on \\W, at most 6 references; BLEU "
    "on 13a tokens, METEOR 1.5 and pyter's TER on NLTK's words"
)
# what NLTK's word tokeniser still does to such text
_NLTK = {
    '"': "``",
    "cannot": "can not",
    "gimme": "gim me",
    "gonna": "gon na",
    "gotta": "got ta",
    "lemme": "lem me",
    "wanna": "wan na",
}
_PIECES = re.compile(r"\w+|[^\w\s]")


Pieces = tuple[list[list[str]], list[list[list[str]]]]


def weighted(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> Weighted:
    found = _pieces(predictions, references)
    outputs, accepted = _words(found)
    data = find(_OTHERWISE)
    return joined(
        (weighted_bleu(*_texts(found)), 1),
        (weighted_meteor(data, outputs, accepted) if data else joined(), 1),
        (means({"ter": least(outputs, accepted)}), 1),
    )


@metric(
    Facts(
        of="texts",
        keys=("bleu", "meteor", "ter"),
        printed=1.0,
        lower=("ter",),
        slow=("meteor", "ter"),
        protocol=PROTOCOL,
    ),
    weighted,
)
def generation_eval(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> dict[str, float]:
    """BLEU in 0..100, METEOR in 0..1, TER from 0 (equal) up: the units of the LoRA paper's Tables 13 and 14.

    Where pycocoevalcap is missing, METEOR is left out. The paper's code fills up to six references with the
    first one, which changes none of the three, and lorakit does not. Empty predictions: see each metric.
    """
    found = _pieces(predictions, references)
    scores = {"bleu": corpus_bleu(*_texts(found))}
    outputs, accepted = _words(found)
    if data := find(_OTHERWISE):
        scores |= attempt(("meteor",), lambda: {"meteor": corpus_meteor(data, outputs, accepted)})
    return scores | attempt(("ter",), lambda: {"ter": mean_of_least(outputs, accepted)})


def _pieces(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> Pieces:
    accepted = [
        [pieces(text) for text in texts[:REFERENCES]] for texts in accepted_texts(references)
    ]
    return [pieces(text) for text in predictions], accepted


def _texts(found: Pieces) -> tuple[list[str], list[list[str]]]:
    return [" ".join(p) for p in found[0]], [[" ".join(p) for p in texts] for texts in found[1]]


def _words(found: Pieces) -> Pieces:
    return [words(p) for p in found[0]], [[words(p) for p in texts] for texts in found[1]]


def pieces(text: str) -> list[str]:
    """The text in lower case, split as the paper's code does it (`gpt2_decode.py --tokenize --lower`)."""
    return _PIECES.findall(text.lower())


def words(pieces: list[str]) -> list[str]:
    """What `nltk.word_tokenize` makes of such pieces: other quotation marks, and six words split."""
    return [word for piece in pieces for word in _NLTK.get(piece, piece).split()]


PLUGIN = generation_eval
