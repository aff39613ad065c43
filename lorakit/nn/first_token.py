"""The last layer at the first token only, for a head that reads nothing else ([CLS], <s>).

In the last layer of an encoder the other positions are needed as keys and values; their attention, output and
feed-forward products are never read. Leaving them out changes no number that is: of the matrix products of a layer it
saves 9 in 12, forwards and backwards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lorakit.nn.attention import FIRST_ONLY, NAME


def read_first_token_only(model: Any, attention: nn.Module, after: nn.Module) -> bool:
    """Let the last layer ask for the first token alone. False, and nothing is changed, where the logits would differ.

    attention: the layer's attention, which calls `nn.attention.attention`. after: what is given its result, and the
    layer's input beside it to be added.
    """
    if getattr(model.config, "_attn_implementation", None) != NAME:
        return False
    before = _logits(model)
    setattr(attention, FIRST_ONLY, True)
    handle = after.register_forward_pre_hook(_first_of_each)
    try:
        same = torch.allclose(
            before, _logits(model), rtol=1e-3, atol=1e-3 * float(before.abs().max().clamp(min=1))
        )
    except (
        RuntimeError,
        ValueError,
        IndexError,
    ):  # shapes that do not meet: another layout than this is for
        same = False
    if not same:
        handle.remove()
        delattr(attention, FIRST_ONLY)
    return same


def _first_of_each(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x[:, :1] if isinstance(x, Tensor) else x for x in inputs)


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    device = next(model.parameters()).device
    ids = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]], device=device)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=device)
    training = model.training
    logits = model.eval()(input_ids=ids, attention_mask=mask).logits.float()
    model.train(training)
    return logits
