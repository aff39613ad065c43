"""BLEU, METEOR and TER of WebNLG and DART as the LoRA paper's code computes them: both sides lower-cased and split at
all that is no letter, digit or underscore, at most six references, then GenerationEval."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._java import find
from lorakit.metrics.bleu import corpus_bleu
from lorakit.metrics.meteor import corpus_meteor
from lorakit.metrics.ter import mean_of_least

REFERENCES = 6
PROTOCOL = (
    "LoRA (c4593f0) and GenerationEval (8067849), eval.py -nr 6: lower-cased, split on \\W, at most 6 references; BLEU "
    "on 13a tokens, METEOR 1.5 and pyter's TER on NLTK's words"
)
# what NLTK's word tokeniser still does to such text
_NLTK = {
    '"': "``", "cannot": "can not", "gimme": "gim me", "gonna": "gon na", "gotta": "got ta", "lemme": "lem me",
    "wanna": "wan na",
}  # fmt: skip
_PIECES = re.compile(r"\w+|[^\w\s]")


@metric(Facts(of="texts", keys=("bleu", "meteor", "ter"), printed=1.0, lower=("ter",), protocol=PROTOCOL))
def generation_eval(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """BLEU in 0..100, METEOR in 0..1, TER from 0 (equal) up: the units of the LoRA paper's Tables 13 and 14.

    Where Java or pycocoevalcap is missing, METEOR is left out. The paper's code fills up to six references with the
    first one, which changes none of the three, and lorakit does not. Empty predictions: see each metric.
    """
    outputs = [pieces(text) for text in predictions]
    accepted = [[pieces(text) for text in texts[:REFERENCES]] for texts in accepted_texts(references)]
    scores = {"bleu": corpus_bleu([" ".join(p) for p in outputs], [[" ".join(p) for p in texts] for texts in accepted])}
    outputs, accepted = [words(p) for p in outputs], [[words(p) for p in texts] for texts in accepted]
    if java := find("METEOR is left out"):
        scores["meteor"] = corpus_meteor(java, outputs, accepted)
    return scores | {"ter": mean_of_least(outputs, accepted)}


def pieces(text: str) -> list[str]:
    """The text in lower case, split as the paper's code does it (`gpt2_decode.py --tokenize --lower`)."""
    return _PIECES.findall(text.lower())


def words(pieces: list[str]) -> list[str]:
    """What `nltk.word_tokenize` makes of such pieces: other quotation marks, and six words split."""
    return [word for piece in pieces for word in _NLTK.get(piece, piece).split()]


PLUGIN = generation_eval
