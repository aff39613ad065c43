"""The random, frozen tensors A and B that all layers share in VeRA, PVeRA and RandLoRA.

They are parameters: DDP would send buffers to every process in each step. On a model of shapes only
they are on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lorakit.nn.linear import weight_of
from lorakit.nn.select import Site


def random_pair(sites: Sequence[Site], rows_of_a: int, columns_of_b: int, seed: int) -> nn.Module:
    """A (rows_of_a, largest in) and B (largest out, columns_of_b), as PEFT 0.21 draws them.

    Kaiming-uniform with a gain of sqrt(2) from one generator, A first.
    """
    out, in_ = _largest(sites)
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, shape in (("A", (rows_of_a, in_)), ("B", (out, columns_of_b))):
        limit = math.sqrt(6 / shape[1])
        drawn[name] = torch.empty(shape).uniform_(-limit, limit, generator=generator)
    return _frozen(drawn, sites[0])


def random_bases(sites: Sequence[Site], r: int, seed: int) -> nn.Module:
    """A (r, 1, smaller size) and B (larger size, n, r) with n = ceil(smaller size / r), as PEFT
    0.21 draws them for RandLoRA: uniform from one generator, A first, with a deviation of 1.

    PEFT draws and divides in bfloat16, so that their values have eight bits.
    """
    large, small = sorted(_largest(sites), reverse=True)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        empty = torch.empty(shape, dtype=torch.bfloat16)
        return nn.init.kaiming_uniform_(empty, a=math.sqrt(5), generator=generator)

    a = draw(r, 1, small)
    b = torch.cat([draw(large, 1, r) for _ in range(math.ceil(small / r))], 1)
    return _frozen({"A": a / a.std(), "B": b / b.std()}, sites[0])


def _largest(sites: Sequence[Site]) -> tuple[int, int]:
    """(out, in)"""
    return max(site.shape[0] for site in sites), max(site.shape[1] for site in sites)


def _frozen(drawn: Mapping[str, Tensor], first: Site) -> nn.Module:
    """A module with these as frozen parameters, on the device of the first site."""
    weight = weight_of(first.module)
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    device = torch.device("cpu") if weight.is_meta else weight.device
    module = nn.Module()
    for name, value in drawn.items():
        value = value.to(device, torch.promote_types(dtype, torch.float32))
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return module
