"""Who trains."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn


def train_only(model: nn.Module, names: Collection[str]) -> None:
    """Exactly the parameters `names` train; they become float32 masters, whatever the dtype of the rest."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        if name in names and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()


def tied(model: nn.Module, parameter: nn.Parameter) -> list[str]:
    """Every name under which the model holds this very tensor; more than one: it is tied."""
    return [name for name, other in model.named_parameters(remove_duplicate=False) if other is parameter]


def count(model: nn.Module, names: Collection[str]) -> int:
    """Numbers in the parameters `names`."""
    return sum(p.numel() for name, p in model.named_parameters() if name in names)
