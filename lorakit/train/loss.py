"""The loss of one micro batch as a sum, so that any cut of the global batch adds up to the same gradient."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lorakit.batches import IGNORE
from lorakit.tasks import Head


def loss_sum(model: nn.Module, batch: dict[str, Tensor], head: Head, smoothing: float = 0.0) -> Tensor:
    """Sum over the batch's examples (or trained tokens) of cross entropy, or of the squared error; a float32 scalar.

    smoothing: (1 - e) * NLL + e * mean over the classes (the whole vocabulary) of -log p, as the reference code has it.
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits, labels = model(**inputs).logits, batch["labels"]
    if head is Head.REGRESSION:
        return F.mse_loss(logits.squeeze(-1).float(), labels, reduction="sum")
    if head is Head.CAUSAL:
        labels = labels[:, 1:]
        chosen = labels != IGNORE
        logits, labels = logits[:, :-1][chosen], labels[chosen]
    return F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=smoothing)
