r"""The bottleneck of all adapters: A(x) = W_up f(W_down x + b_down) + b_up.

W_down is (r, d) and W_up (d, r), so each has 2 d r + r + d numbers. W_up and b_up start at zero, so
that the model's output does not change at first (Houlsby et al. start both matrices close to zero).
On a base in half precision its products have the base's dtype, as LoRA's have.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorakit.errors import ModelError
from lorakit.methods._inserts import Insert
from lorakit.nn.linear import like_layer
from lorakit.nn.select import Roles, Site, block_ends, select


class Bottleneck(Insert):
    """y + A(y), with y (..., d) the output of its layer.

    like: a layer of the base, whose device it has; the numbers are float32, or float64 if its are.
    """

    def __init__(self, d: int, r: int, like: nn.Module, f: Callable[[Tensor], Tensor] = F.relu):
        super().__init__()
        made = like_layer(like)
        self.down = nn.Parameter(torch.empty(r, d, **made))
        self.down_bias = nn.Parameter(torch.zeros(r, **made))
        self.up = nn.Parameter(torch.zeros(d, r, **made))
        self.up_bias = nn.Parameter(torch.zeros(d, **made))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as torch starts a Linear
        self.f = f

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        return y + self.through(y)

    def through(self, x: Tensor) -> Tensor:
        """A(x)"""
        h = self.f(F.linear(x, self.down.to(x.dtype), self.down_bias.to(x.dtype)))
        return F.linear(h, self.up.to(x.dtype), self.up_bias.to(x.dtype))

    def change(self) -> float:
        r"""||W_up W_down||_F / ||I||_F: the size of A(y) over that of y, if f were linear."""
        return float((self.up.detach() @ self.down.detach()).norm()) / math.sqrt(self.up.shape[0])

    def extra_repr(self) -> str:
        return f"r={self.down.shape[0]}"


class Normed(Bottleneck):
    """y + A(LayerNorm(y)), with a trained layer norm: 2 d numbers more."""

    def __init__(self, d: int, r: int, like: nn.Module):
        super().__init__(d, r, like)
        self.norm_weight = nn.Parameter(torch.ones_like(self.up_bias))
        self.norm_bias = nn.Parameter(torch.zeros_like(self.up_bias))

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        exact = torch.promote_types(y.dtype, torch.float32)
        normed = F.layer_norm(
            y.to(exact), y.shape[-1:], self.norm_weight.to(exact), self.norm_bias.to(exact)
        )
        return y + self.through(normed.to(y.dtype))


class AfterSum(Bottleneck):
    """At the end of a block, with s its last sum: N(s + A(N(s))) where the block ends in a norm N,
    on that norm; else s + A(s), on the block."""

    def __init__(self, d: int, r: int, like: nn.Module, norm: nn.Module | None):
        super().__init__(d, r, like)
        # in a tuple, because it is the base's, and not a child of this module
        self.norm = (norm,)

    def add_to(self, y: Any, x: Tensor) -> Any:
        if isinstance(y, tuple):  # T5's block gives more than its sum
            return (self.add_to(y[0], x), *y[1:])
        norm = self.norm[0]
        if norm is None:
            return y + self.through(y)
        # forward, because calling the norm would run its hook, which is this method
        return norm.forward(x + self.through(y))


def after_blocks(
    model: nn.Module, roles: Roles, r: int, drop: int = 0
) -> list[tuple[Site, Insert]]:
    """An `AfterSum` for the end of every block but the first `drop`. ModelError: none is left."""
    last = select(model, ["mlp_out"], roles)[-1]
    d, like, own = last.shape[0], last.module, "block_norm" in roles
    ends = block_ends(model, roles)
    if drop >= len(ends):
        raise ModelError(
            f"adapter_d: drop={drop} leaves no block with an adapter: the model has {len(ends)}"
        )
    return [(end, AfterSum(d, r, like, end.module if own else None)) for end in ends[drop:]]
