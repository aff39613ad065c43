"""The change of one weight, as two factors (LoRA) or as a matrix (full fine-tuning), and its singular values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

KEPT = 64
"""Singular values that are written down and drawn: the paper's largest rank."""


@dataclass(frozen=True)
class Change:
    """dW = B A with `factors`, else the matrix `dense`; of shape (out, in). Computed with in float64.

    base: W0, where it was read. factors: B (out, r) with the scale alpha/r in it, and A (r, in).
    """

    site: str
    factors: tuple[Tensor, Tensor] | None = None
    dense: Tensor | None = None
    base: Tensor | None = None

    @property
    def matrix(self) -> Tensor:
        """dW, (out, in)"""
        if self.factors is None:
            assert self.dense is not None
            return self.dense.double()
        b, a = self.factors
        return b.double() @ a.double()

    @property
    def before(self) -> Tensor:
        """W0, (out, in)"""
        assert self.base is not None
        return self.base.double()

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (out, n), the singular values (n), largest first, and V (in, n), with n = r for a low rank."""
        if self.factors is None:
            return svd(self.matrix)
        return product_svd(*(factor.double() for factor in self.factors))


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, n), S (n), V (in, n) with matrix = U diag(S) V^T and n = min(out, in)."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u, s, vh.T


def product_svd(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The SVD of B A without its matrix: B = Q_b R_b, A^T = Q_a R_a, and the SVD of R_b R_a^T, which is r x r."""
    q_b, r_b = torch.linalg.qr(b)
    q_a, r_a = torch.linalg.qr(a.T)
    u, s, v = svd(r_b @ r_a.T)
    return q_b @ u, s, q_a @ v
