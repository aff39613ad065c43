"""Noise on the embeddings in training (NEFTune): the formula of transformers' Trainer and TRL.

    e + u alpha / sqrt(L d),   u uniform in [-1, 1]

e: (batch, L, d), the output of the input embeddings; L counts padding. Jain et al. 2023, NEFTune,
arXiv 2310.05914.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def noise_on_embeddings(model: Any, alpha: float | None) -> Iterator[None]:
    """Inside, the model is trained with noise; what it computes in `eval` stays as it is."""
    if alpha is None:
        yield
        return

    def add_noise(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        bound = alpha / math.sqrt(output.shape[1] * output.shape[2])
        return output + torch.zeros_like(output).uniform_(-bound, bound)

    hook = model.get_input_embeddings().register_forward_hook(add_noise)
    try:
        yield
    finally:
        hook.remove()
