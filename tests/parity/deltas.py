"""A method's delta on one weight, with numbers that any program can make again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lorakit.methods import methods
from lorakit.methods.reparam._delta import MethodDelta
from lorakit.nn.select import Site


def wave(*shape: int, k: float) -> Tensor:
    """sin(k i + 0.3) for i = 0, 1, ..., float64."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count, dtype=torch.float64) * k + 0.3).reshape(shape)


def delta_on(name: str, weight: Tensor, **fields) -> MethodDelta:
    """The method's delta on a linear layer of this weight, with its first values."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    method = methods.get(name)(**fields)
    site = Site("layer.0.query", layer, "all", None, "query")
    delta = MethodDelta(method, site, method.shared([site]))
    torch.manual_seed(0)
    delta.begin()
    return delta


def put(module: Any, **values: Tensor) -> Any:
    """Give parameters of a delta, or of what deltas share, these values."""
    with torch.no_grad():
        for name, value in values.items():
            getattr(module, name).copy_(value)
    return module
