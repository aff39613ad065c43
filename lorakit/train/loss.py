"""The loss of one micro batch as a sum, so that any cut of the global batch adds up to the same gradient."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lorakit.batches import IGNORE
from lorakit.nn.logits import last_logits
from lorakit.tasks import Head


def loss_sum(model: nn.Module, batch: dict[str, Any], head: Head, smoothing: float = 0.0) -> Tensor:
    """Sum over the batch's examples (or trained tokens) of cross entropy, or of the squared error; a float32 scalar.

    smoothing: (1 - e) * NLL + e * mean over the classes (the whole vocabulary) of -log p, as the reference code has it.
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    if head is Head.CAUSAL:
        logits, labels = _next_tokens(model, inputs, batch["labels"])
    else:
        logits, labels = model(**inputs).logits, batch["labels"]
    if head is Head.REGRESSION:
        return F.mse_loss(logits.squeeze(-1).float(), labels, reduction="sum")
    return F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=smoothing)


def _next_tokens(model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> tuple[Tensor, Tensor]:
    """(trained tokens, vocabulary) and (trained tokens,). The output layer, a fifth of a small model, is left out where
    no example of the batch has a trained token yet: before the shortest prompt's end."""
    chosen = labels != IGNORE
    first = max(int(chosen.any(0).int().argmax()), 1) - 1  # the position that predicts the first trained token
    logits = last_logits(model, inputs, labels.shape[1] - first)
    labels, chosen = labels[:, first + 1 :], chosen[:, first + 1 :]
    return logits[:, :-1][chosen], labels[chosen]
