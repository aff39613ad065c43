"""The probe that a causal model does not see the tokens it has to predict."""

from __future__ import annotations

import torch
from torch import nn

from lorakit.bases.files import first_line
from lorakit.errors import ModelError

TOLERANCE = 1e-2
"""Difference of a logit, relative to the largest, that rounding may cause in half precision."""


@torch.no_grad()
def refuse_not_causal(model: nn.Module, name: str) -> None:
    """ModelError: the logits of a token change with the tokens after it.

    Encoders have a causal class too, but attend in both directions in it: the loss falls, and the
    model cannot generate anything. Two rows that differ in the last token are compared.
    """
    # A quantized model is on the GPU already.
    device = next(model.parameters()).device
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]], device=device)
    try:
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    except Exception as error:  # a forward pass may raise anything if settings do not fit together
        raise ModelError(
            f"{name} ({type(model).__name__}) does not run: {first_line(error)}"
        ) from error
    first, second = logits[:, :3].float()
    if (first - second).abs().max() > TOLERANCE * first.abs().max():
        raise ModelError(
            f"{name} ({type(model).__name__}) reads the tokens that follow, so it cannot learn to "
            "write them: it is an encoder. Give a causal model, such as GPT-2 or Llama."
        )
