r"""Which directions of W does dW make louder: Table 7 of the LoRA paper (section 7.3, appendix H.4).

    ||U^T W V^T||_F    U, V: the first r left- and right-singular vectors of dW, of W itself, or of a random matrix
    amplification = ||dW||_F / ||U^T W V^T||_F    with U and V of dW

The first is what W has in those r x r directions. Small of dW and large of W: dW does not repeat what W does already;
larger of dW than of a random matrix: nor does it avoid it. (In the paper's notation V has the vectors as rows.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lorakit.analysis._change import Change, svd


@dataclass(frozen=True)
class Amplification:
    """One site, with the norms of Table 7. r: how many singular vectors were taken, the adapter's rank."""

    site: str
    r: int
    base: float
    """||W||_F"""
    delta: float
    """||dW||_F"""
    onto_delta: float
    """||U^T W V^T||_F with U and V of dW."""
    onto_base: float
    onto_random: float
    factor: float | None
    """delta / onto_delta: how many times louder; None where W has nothing there."""


def projected_norm(w: Tensor, u: Tensor, v: Tensor) -> float:
    """||U^T W V||_F for w: (out, in), u: (out, r), v: (in, r)."""
    return float((u.T @ w @ v).norm())


def amplification(change: Change, seed: int = 0) -> Amplification:
    """Of a low-rank change whose W was read. seed: of the random matrix."""
    (u, s, v), w = change.svd, change.before
    r = len(s)
    u_w, _, v_w = svd(w)
    noise = torch.randn(w.shape, generator=torch.Generator().manual_seed(seed), dtype=w.dtype)
    u_x, _, v_x = svd(noise)
    delta, onto_delta = float(s.norm()), projected_norm(w, u, v)
    onto_base, onto_random = (
        projected_norm(w, u_w[:, :r], v_w[:, :r]),
        projected_norm(w, u_x[:, :r], v_x[:, :r]),
    )
    factor = delta / onto_delta if onto_delta else None
    return Amplification(
        change.site, r, float(w.norm()), delta, onto_delta, onto_base, onto_random, factor
    )
