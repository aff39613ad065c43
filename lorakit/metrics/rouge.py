"""ROUGE of summaries (Lin 2004), as rouge-score computes it: F1 of shared words, word pairs and subsequences.

`rouge1` and `rouge2` count n-grams. `rougeL` is the longest common subsequence of two texts, each one sequence of
words; `rougeLsum` is the same sentence by sentence, where sentences are lines, and equal to it for texts of one line.

The ROUGE-L of captions (`rouge_l`) is another one: F with beta 1.2, on other tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._tokens import splitter
from lorakit.metrics._weighted import Weighted, means

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
PROTOCOL = (
    "ROUGE F1 of rouge-score in percent, Porter stemmer on, plain mean over examples; lower-cased runs of a-z and 0-9; "
    "rougeL: the whole text is one sequence, rougeLsum: sentences are lines"
)


def each(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    tokenize: str | None = None,
) -> dict[str, list[float]]:
    """Kind -> percent of each example."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(
        list(KINDS), use_stemmer=True, tokenizer=None if tokenize is None else _Split(tokenize)
    )
    pairs = zip(accepted_texts(references), predictions, strict=True)
    found = [scorer.score_multi(accepted, prediction) for accepted, prediction in pairs]
    return {kind: [100 * float(scores[kind].fmeasure) for scores in found] for kind in KINDS}


class _Split:
    """As rouge-score asks for tokens: lower-cased, and not stemmed."""

    def __init__(self, name: str):
        self.tokenize = splitter(name, lowercase=True)


def weighted(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    tokenize: str | None = None,
) -> Weighted:
    return means(each(predictions, references, tokenize))


@metric(
    Facts(of="texts", keys=KINDS, printed=1.0, tokenizes=True, slow=KINDS, protocol=PROTOCOL),
    weighted,
)
def rouge(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    tokenize: str | None = None,
) -> dict[str, float]:
    """Percent. Of several references the best F1 counts, for each kind on its own.

    An empty prediction gives 0, and so does a text without a letter a-z or a digit; a reference of one word has no
    rouge2 but 0. ROUGE-L of other libraries is another value: py-rouge's is some 4 points higher. tokenize: one of
    sacrebleu's tokenizers, lower-cased and not stemmed, for other scripts.
    """
    return {
        kind: sum(values) / len(values)
        for kind, values in each(predictions, references, tokenize).items()
    }


PLUGIN = rouge
