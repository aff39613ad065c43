"""BERTScore (Zhang et al. 2020, arXiv 1904.09675): how close the tokens' contextual embeddings are, without weights or
rescaling; what the DART paper has beside BLEU, and the LoRA paper does not. An extra: it needs a model of 1.4 GB."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec

from lorakit.metrics._base import Facts, metric

log = logging.getLogger(__name__)

MODEL, LAYER = "roberta-large", 17
"""bert-score's own choice for English."""
PROTOCOL = f"BERTScore F1 (bert-score 0.3.13, {MODEL}, layer {LAYER}, no idf, no rescaling), the best reference counts"


@metric(Facts(of="texts", keys=("bertscore_f1",), printed=1.0, model=True, protocol=PROTOCOL))
def bertscore(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> dict[str, float]:
    """Mean F1 over examples, at most 1. An empty prediction counts 0: bert-score cannot take one.

    Left out, with one warning that says why, where bert-score or its model is not at hand.
    """
    if find_spec("bert_score") is None:
        log.warning('BERTScore is left out: `pip install "lorakit[bertscore]"`')
        return {}
    from bert_score import score  # pyright: ignore[reportMissingImports] (an extra)

    full = [i for i, text in enumerate(predictions) if text.strip()]
    accepted = [[text] if isinstance(text, str) else list(text) for text in references]
    try:
        texts = [predictions[i] for i in full], [accepted[i] for i in full]
        f1: list[float] = score(*texts, MODEL, LAYER)[2].tolist() if full else []  # type: ignore[union-attr]
    except OSError as error:  # transformers' word for a model that cannot be had
        log.warning(
            "BERTScore is left out, its model %s cannot be had: %s",
            MODEL,
            str(error).splitlines()[0],
        )
        return {}
    return {"bertscore_f1": sum(f1) / len(predictions)}


PLUGIN = bertscore
