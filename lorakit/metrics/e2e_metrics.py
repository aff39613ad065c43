"""The five metrics of the E2E NLG challenge (Dušek et al. 2020) as e2e-metrics computes them, in the units that the
LoRA paper prints (Table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lorakit.metrics._attempt import attempt
from lorakit.metrics._base import Facts, accepted_texts, metric
from lorakit.metrics._nlg_data import Data, find
from lorakit.metrics._ptb import Tokens, tokenize
from lorakit.metrics._weighted import Weighted, joined, means
from lorakit.metrics.bleu import corpus_bleu, weighted_bleu
from lorakit.metrics.cider import each_cider, mean_cider, times
from lorakit.metrics.meteor import corpus_meteor, weighted_meteor
from lorakit.metrics.nist import corpus_nist, weighted_nist
from lorakit.metrics.rouge_l import each_rouge_l, mean_rouge_l

PROTOCOL = (
    "e2e-metrics (1b9c4d8) -p: BLEU and NIST-5 on mteval-v13a tokens, lower-cased; METEOR 1.5, ROUGE-L and CIDEr on "
    "CoreNLP 3.4.1 tokens, lower-cased, no punctuation, as for MS-COCO captions"
)
_OTHERWISE = "METEOR is left out, ROUGE-L and CIDEr are computed on approximate tokens, as rouge_l_approx and cider_approx"


def weighted(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> Weighted:
    texts = accepted_texts(references)
    data = find(_OTHERWISE)
    tokens = tokenize(data, predictions, texts)
    return joined(
        (weighted_bleu(predictions, texts, lowercase=True), 1),
        (weighted_nist(predictions, texts), 1),
        (weighted_meteor(data, tokens.predictions, tokens.references) if data else joined(), 100),
        (means({tokens.key("rouge_l"): each_rouge_l(tokens)}), 100),
        (means({tokens.key("cider"): each_cider(tokens, times(tokens))}), 1),
    )


@metric(
    Facts(
        of="texts",
        keys=("bleu", "nist", "meteor", "rouge_l", "cider"),
        printed=1.0,
        slow=("meteor",),
        protocol=PROTOCOL,
    ),
    weighted,
)
def e2e_metrics(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> dict[str, float]:
    """BLEU, METEOR and ROUGE-L in 0..100, NIST from 0 up, CIDEr in 0..10.

    Where pycocoevalcap is missing, METEOR is left out, and `rouge_l_approx` and `cider_approx` have other
    tokens. BLEU is that of sacrebleu, which differs from `-p` (and equals the challenge's Perl script) where an output
    has fewer than four tokens. References count as they are given: with those of the LoRA paper's code, which are
    tokenised, the raw output of TGen scores 2.4 BLEU less. Empty predictions: see each metric.
    """
    texts = accepted_texts(references)
    data = find(_OTHERWISE)

    def of_tokens() -> dict[str, float]:
        tokens = tokenize(data, predictions, texts)
        scores = {} if data is None else attempt(("meteor",), partial(_meteor, data, tokens), 100)
        return scores | {
            tokens.key("rouge_l"): 100 * mean_rouge_l(tokens),
            tokens.key("cider"): mean_cider(tokens),
        }

    scores = {
        "bleu": corpus_bleu(predictions, texts, lowercase=True),
        "nist": corpus_nist(predictions, texts),
    }
    return scores | attempt(("meteor", "rouge_l", "cider"), of_tokens)


def _meteor(data: Data, tokens: Tokens) -> dict[str, float]:
    return {"meteor": corpus_meteor(data, tokens.predictions, tokens.references)}


PLUGIN = e2e_metrics
