r"""Damping of intruder dimensions: an adapter that forgets less, without training.

    W + dW = sum_j s_j y_j z_j^T          I = {j <= k : max_i |cos(y_j, x_i)| < epsilon}
    dW'    = the best rank r of  dW + (lambda - 1) sum_(j in I) s_j y_j z_j^T

W: (out, in); x_i: the left-singular vectors of W; r: the rank of dW. lambda = 1 changes nothing,
and lambda = 0 removes the intruders. Shuttleworth et al. 2024, arXiv 2410.21228, scale them in
W + dW; the truncation to rank r, which keeps the adapter's size, is PEFT's
(`reduce_intruder_dimension`). It is not exact: what is removed is not inside dW alone.

When to use: when an adapter has intruder dimensions (`lorakit analyze intruders`) and must keep
what the base could do. It costs two SVDs for each weight and some of the task's score, so that both
should be measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Damping:
    """How intruder dimensions are found and damped."""

    keep: float = 0.75
    """lambda: share of an intruder dimension that is kept."""
    epsilon: float = 0.5
    """Largest cosine of an intruder with the vectors of W."""
    top: int = 10
    """k: vectors of W + dW that are tested."""


def damp(w: Tensor, b: Tensor, a: Tensor, damping: Damping) -> tuple[Tensor, Tensor, int]:
    """(B, A) of the damped change, and the number of intruders; the same (B, A) if it is 0.

    w: (out, in). b: (out, r), with its scale. a: (r, in). In float64, returned in b's dtype.
    """
    before = w.double()
    change = b.double() @ a.double()
    x, _, _ = torch.linalg.svd(before, full_matrices=False)
    y, s, zh = torch.linalg.svd(before + change, full_matrices=False)
    cosines = (x.T @ y[:, : damping.top]).abs().amax(0)
    intruders = (cosines < damping.epsilon).nonzero().flatten()
    if not len(intruders):
        return b, a, 0
    parts = (y[:, intruders] * s[intruders]) @ zh[intruders]
    u, values, vh = torch.linalg.svd(change + (damping.keep - 1) * parts, full_matrices=False)
    rank = a.shape[0]
    root = values[:rank].sqrt()
    return (u[:, :rank] * root).to(b), (root[:, None] * vh[:rank]).to(a), len(intruders)
