r"""ABBA: the element-wise product of two low-rank matrices.

    dW = s (B1 A1) o (B2 A2)        s = sqrt(alpha1 alpha2)

B1 A1 starts as the best approximation of W0 of rank r1, A2 at random and B2 at zero. By rows the
product is one of rank r1 r2 (the Khatri-Rao product), so no dense matrix is formed. Singhal et al.
2025, arXiv 2505.14238; s is that of its code.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from lorakit.methods.reparam import LowRank, MethodDelta, Shape, Site, Tensor


class ABBA(LowRank):
    """A Hadamard product of two low-rank matrices."""

    name: Literal["abba"] = "abba"
    r1: int = Field(default=4, ge=1)
    """Rank of B1 A1."""
    r2: int = Field(default=4, ge=1)
    """Rank of B2 A2."""
    alpha1: float = Field(default=8, gt=0, le=1e6)
    alpha2: float = Field(default=8, gt=0, le=1e6)

    def scale(self, site: Site) -> float:
        return math.sqrt(self.alpha1 * self.alpha2)

    def tensors(self, site: Site) -> dict[str, Shape]:
        out, in_ = site.shape
        r1 = min(self.r1, out, in_)
        return {"A1": (r1, in_), "B1": (out, r1), "A2": (self.r2, in_), "B2": (out, self.r2)}

    def begin(self, d: MethodDelta) -> None:
        r1 = len(d.A1)
        u, s, vh = d.svd()
        root = s[:r1].sqrt()
        d.A1.copy_(root[:, None] * vh[:r1])
        d.B1.copy_(u[:, :r1] * root)
        # U(-sqrt(6 / in), sqrt(6 / in)), as in the reference code
        limit = math.sqrt(6 / d.A2.shape[1])
        d.A2.uniform_(-limit, limit)

    def reads(self, d: MethodDelta) -> Tensor:
        return (d.A1[:, None] * d.A2).flatten(0, 1)

    def writes(self, d: MethodDelta) -> Tensor:
        return (d.B1[:, :, None] * d.B2[:, None]).flatten(1)


PLUGIN = ABBA
