r"""What a low rank could keep of full fine-tuning: the spectrum of dW = W_FT - W0, and what its best rank r leaves out.

    error(r) = ||dW - dW_r||_F / ||dW||_F = sqrt(sum_{i > r} sigma_i^2 / sum_i sigma_i^2)

dW_r: the first r terms of the singular value decomposition. No matrix of rank r is nearer (Eckart and Young 1936), so
this bounds every B A that would copy dW. It does not bound what LoRA can learn, which need not be dW.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lorakit.analysis._change import KEPT, Change


@dataclass(frozen=True)
class Truncation:
    """One site. errors: error(r) for r = 1 ... KEPT, or as far as the matrix goes; singular: as many."""

    site: str
    norm: float
    """||dW||_F"""
    singular: list[float]
    errors: list[float]


def truncation_errors(s: Tensor) -> Tensor:
    """s: all singular values (n), largest first -> error(r) for r = 1 ... n, the last of them 0. Zeros for dW = 0."""
    left = (
        s.square().flip(0).cumsum(0).flip(0)
    )  # summed from the small end: nothing is lost beside the large ones
    after = torch.cat([left[1:], left.new_zeros(1)])
    return (after / left[0]).sqrt() if left[0] > 0 else torch.zeros_like(s)


def truncation(change: Change) -> Truncation:
    """Of one change; W is not needed beside it."""
    s = change.svd[1]
    return Truncation(
        change.site, float(s.norm()), s[:KEPT].tolist(), truncation_errors(s)[:KEPT].tolist()
    )
