"""The random, frozen pair A, B that all layers share in VeRA and PVeRA."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from lorakit.nn.linear import weight_of
from lorakit.nn.select import Site


def random_pair(sites: Sequence[Site], rows_of_a: int, columns_of_b: int, seed: int) -> nn.Module:
    """A (rows_of_a, largest in) and B (largest out, columns_of_b), as PEFT 0.21 draws them.

    Kaiming-uniform with a gain of sqrt(2) from one generator, A first. They are parameters: DDP
    would send buffers to every process in each step. On a model of shapes only they are on the CPU.
    """
    out = max(site.shape[0] for site in sites)
    in_ = max(site.shape[1] for site in sites)
    weight = weight_of(sites[0].module)
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    device = torch.device("cpu") if weight.is_meta else weight.device
    generator = torch.Generator().manual_seed(seed)
    pair = nn.Module()
    for name, shape in (("A", (rows_of_a, in_)), ("B", (out, columns_of_b))):
        limit = math.sqrt(6 / shape[1])
        drawn = torch.empty(shape).uniform_(-limit, limit, generator=generator)
        drawn = drawn.to(device, torch.promote_types(dtype, torch.float32))
        pair.register_parameter(name, nn.Parameter(drawn, requires_grad=False))
    return pair
