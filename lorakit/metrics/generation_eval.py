"""BLEU, METEOR and TER of WebNLG and DART as the LoRA paper's code computes them.

Both sides are lower-cased and split at everything that is not a letter, digit or underscore, and at
most six references are kept. Then GenerationEval scores them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._meteor.data import find
from lorakit.metrics._statistics import Part, Suite
from lorakit.metrics.bleu import corpus_bleu
from lorakit.metrics.meteor import corpus_meteor
from lorakit.metrics.ter import mean_ter

REFERENCES = 6
_OTHERWISE = "METEOR is left out"
PROTOCOL = (
    "LoRA (c4593f0) and GenerationEval (8067849), eval.py -nr 6: lower-cased, split on \\W, at "
    "most 6 references; BLEU on 13a tokens, METEOR 1.5 and pyter's TER on NLTK's words"
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


@metric(
    Facts(
        of="texts",
        keys=("bleu", "meteor", "ter"),
        printed=1.0,
        lower=("ter",),
        slow=("meteor", "ter"),
        protocol=PROTOCOL,
    )
)
def generation_eval(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> Suite:
    """BLEU in 0..100, METEOR in 0..1, TER from 0 (equal) up, as in Tables 13 and 14 of LoRA.

    Where pycocoevalcap is not installed, METEOR is left out. The paper's code fills up to six
    references with the first one; lorakit does not, because none of the three metrics changes.
    Empty predictions: see each metric.
    """
    said = [pieces(text) for text in predictions]
    accepted = [
        [pieces(text) for text in texts[:REFERENCES]] for texts in accepted_texts(references)
    ]
    joined = [" ".join(p) for p in said], [[" ".join(p) for p in texts] for texts in accepted]
    outputs = [words(p) for p in said]
    wanted = [[words(p) for p in texts] for texts in accepted]
    data = find(_OTHERWISE)
    bleu = Part(("bleu",), lambda: corpus_bleu(*joined))
    ter = Part(("ter",), lambda: mean_ter(outputs, wanted))
    if data is None:
        return Suite([bleu, ter])
    return Suite([bleu, Part(("meteor",), lambda: corpus_meteor(data, outputs, wanted)), ter])


def pieces(text: str) -> list[str]:
    """The text in lower case, split as the paper's code does it (`gpt2_decode.py --tokenize
    --lower`)."""
    return _PIECES.findall(text.lower())


def words(pieces: list[str]) -> list[str]:
    """`nltk.word_tokenize` of such pieces: other quotation marks, and six words that are split."""
    return [word for piece in pieces for word in _NLTK.get(piece, piece).split()]


PLUGIN = generation_eval
