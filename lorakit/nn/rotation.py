"""Layer rotation: how far a weight has turned from its first value, 1 - cos(W, W0).

Carbonnelle and De Vleeschouwer 2019, arXiv 1806.01603. With a change of 1 % of the norm it is 5e-5
at most, so it is computed from the change itself and not from the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2**22
"""Numbers that are in float64 at a time."""


@torch.no_grad()
def rotation(first: Tensor, change: Tensor) -> float:
    """1 - cos between W0 and W0 + dW, of any equal shapes; 0 where one of them is zero.

    With a = <W0, W0>, b = <W0, dW> and c = <dW, dW>: sin^2 = (a c - b^2) / (a (a + 2 b + c)), and
    1 - cos is sin^2 / (1 + cos).
    """
    a = b = c = 0.0
    parts = (x.detach().flatten().split(CHUNK) for x in (first, change))
    for w, d in zip(*parts, strict=True):
        w, d = w.double(), d.double()
        a += float(w @ w)
        b += float(w @ d)
        c += float(d @ d)
    squared = a + 2 * b + c
    if a <= 0 or squared <= 0:
        return 0.0
    cos = (a + b) / (a * squared) ** 0.5
    # past a right angle nothing cancels
    if cos <= 0:
        return 1 - cos
    return max(0.0, a * c - b * b) / (a * squared) / (1 + cos)
