"""How two models that should be the same are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.rounding import TINY, rounding

EXACT = torch.float64
"""For identities: the rounding of float32 depends on the processor."""
SAME = rounding(EXACT, TINY)
TEN_STEPS = 1e6 * SAME
"""AdamW divides by the root of a squared gradient, which enlarges rounding near zero."""


def gap(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest logit where that is above one."""
    return float((a - b).abs().max() / a.abs().max().clamp(min=1))


def replace_layer(model: Any, path: str, layer: nn.Module) -> None:
    """Put `layer` in the place of another one, with that one's own weights."""
    old = model.model.get_submodule(path)
    with torch.no_grad():
        layer.weight.copy_(old.weight)
        layer.bias.copy_(old.bias)
    parent, name = path.rsplit(".", 1)
    setattr(model.model.get_submodule(parent), name, layer.to(EXACT))


def losses_of_ten_steps(model: Any, parameters: Sequence[nn.Parameter]) -> list[float]:
    """Of AdamW on a tiny model."""
    optimizer = torch.optim.AdamW(parameters, lr=5e-3)
    losses = []
    for _ in range(10):
        loss = model.loss()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses
