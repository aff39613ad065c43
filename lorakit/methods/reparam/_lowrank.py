"""LoRA's delta on one site: the parameters A and B, and their product (`nn.lowrank`)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorakit.nn.linear import weight_of
from lorakit.nn.lowrank import Projection, Rows, add_product, low_rank_reference
from lorakit.nn.select import Site
from lorakit.nn.surgery import Delta


class LowRankDelta(Delta):
    """dW = (alpha / r) B A of one site's rows: A (r, in), B (rows, r).

    They are float32 (float64 on a float64 base), on the base's device.
    """

    def __init__(self, site: Site, r: int, alpha: float, dropout: float, init: str):
        super().__init__()
        weight = weight_of(site.module)
        out, in_ = site.shape
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self.A = nn.Parameter(torch.empty(r, in_, dtype=dtype, device=weight.device))
        self.B = nn.Parameter(torch.zeros(out, r, dtype=dtype, device=weight.device))
        self.scale = alpha / r
        self.dropout = dropout
        self.share(Projection([self], dropout), 0)
        self.rows: Rows
        if isinstance(site.rows, Tensor):
            # a buffer, so that it moves with the model
            self.register_buffer("rows", site.rows, persistent=False)
        else:
            self.rows = site.rows
        if init == "gaussian":
            nn.init.normal_(self.A, std=1 / r)
        else:
            nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def share(self, projection: Projection, part: int) -> None:
        """Take A x from `projection`, which other deltas of the same input share; this is number
        `part` of them."""
        self.projection = projection
        self.part = part

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            # torch.compile fuses plain operations, and cannot see into an autograd.Function
            x = F.dropout(x, self.dropout, self.training)
            return low_rank_reference(y, x, self.A, self.B, self.scale, self.rows)
        projected = self.projection(self.part, x, y.dtype)
        return add_product(y, projected, self.B, self.scale, self.rows)

    def matrix(self) -> Tensor:
        return (self.scale * self.B.detach()) @ self.A.detach()

    def extra_repr(self) -> str:
        return f"r={self.A.shape[0]}, scale={self.scale:g}, dropout={self.dropout:g}"
