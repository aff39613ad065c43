"""Change: dW of one weight, as two factors (LoRA) or as a matrix (full fine-tuning)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lorakit.combining._site import svd_of_product

MAX_SINGULAR_VALUES = 64
"""Singular values that are written down and drawn: the largest rank in the paper."""


@dataclass(frozen=True)
class Change:
    """dW, of shape (out, in): B A from `factors`, or the matrix `dense`. Computed in float64."""

    site: str
    factors: tuple[Tensor, Tensor] | None = None
    """B (out, r), multiplied by the scale alpha/r, and A (r, in)."""
    dense: Tensor | None = None
    base: Tensor | None = None
    """W0, where it was read."""

    @property
    def matrix(self) -> Tensor:
        """dW, (out, in)"""
        if self.factors is None:
            assert self.dense is not None
            return self.dense.double()
        # small singular values are lost in float32
        b, a = self.factors
        return b.double() @ a.double()

    @property
    def before(self) -> Tensor:
        """W0, (out, in)"""
        assert self.base is not None
        return self.base.double()

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (out, n), the singular values (n), largest first, and V (in, n); n = r for factors."""
        if self.factors is None:
            return svd(self.matrix)
        b, a = self.factors
        # r is small, and an SVD of (out, in) takes time by out * in * min(out, in)
        u, s, vh = svd_of_product(b.double(), a.double())
        return u, s, vh.T


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, n), S (n), V (in, n) with matrix = U diag(S) V^T and n = min(out, in)."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u, s, vh.T
