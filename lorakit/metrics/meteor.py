"""METEOR 1.5 (Denkowski and Lavie 2014): words aligned by form, stem, synonym and paraphrase. The authors' program
computes it, for no other implementation has its tables; nothing stands in for it where Java is missing."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.errors import MetricError
from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._java import Java, dialogue, find
from lorakit.metrics._ptb import tokenize

PROTOCOL = "METEOR 1.5 (meteor-1.5.jar -l en -norm) on CoreNLP 3.4.1 tokens, lower-cased, no punctuation"
OPTIONS = ("-", "-", "-stdio", "-l", "en", "-norm")
_BETWEEN = " ||| "


@metric(Facts(of="texts", keys=("meteor",), protocol=PROTOCOL))
def meteor(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """Fraction in 0..1 over the corpus; nothing where Java or pycocoevalcap is missing.

    Source: METEOR 1.5 as MS-COCO captions and e2e-metrics (commit 1b9c4d8) call it. An example's best reference
    counts. An empty prediction matches nothing, and its reference's words count as missed.
    """
    java = find("METEOR is left out")
    if java is None:
        return {}
    tokens = tokenize(java, predictions, accepted_texts(references))
    return {"meteor": corpus_meteor(java, tokens.predictions, tokens.references)}


def corpus_meteor(java: Java, predictions: Sequence[list[str]], references: Sequence[list[list[str]]]) -> float:
    """Fraction in 0..1, from one start of Java (about 7 seconds). MetricError: it fails, or hangs."""
    with dialogue("METEOR", [*java.meteor, *OPTIONS]) as ask:
        statistics = [
            _numbers(ask(_BETWEEN.join(["SCORE", *map(_line, texts), _line(output)])))
            for output, texts in zip(predictions, references, strict=True)
        ]
        # a value for each example, and the one over all
        answers = ask(_BETWEEN.join(["EVAL", *statistics]), len(statistics) + 1)
    return float(_numbers(answers[-1:]))


def _numbers(answers: list[str]) -> str:
    """The answer. MetricError: it is a complaint, and the next one would not come."""
    try:
        list(map(float, answers[0].split()))
    except ValueError:
        raise MetricError(f"METEOR answers {answers[0]!r} where numbers should be") from None
    return answers[0]


def _line(tokens: list[str]) -> str:
    """Bars would be read as the end of a text."""
    return " ".join(tokens).replace("|||", "").replace("  ", " ")


PLUGIN = meteor
