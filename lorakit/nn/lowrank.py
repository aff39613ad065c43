r"""The low-rank product: h = W0 x + (alpha/r) B A dropout(x)  (Hu et al. 2021, equation 3 and section 4.1).

`add_low_rank` adds the second term onto the first, which is already there: no scaled copy of A or B, no separate sum,
one rank-r activation saved for the backward pass. With H = x A^T and G = dL/dy, at the site's rows,

    y += s H B^T        dB = s G^T H        dH = s G B        dA = dH^T x        dx = dH A

`low_rank_reference` is the same in plain operations, for tests and for reading.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Rows = slice | Tensor | None
"""Which rows of a weight a site is: all of them (None), a contiguous block, or an index (per-head interleaving)."""


def low_rank_reference(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, rows: Rows = None) -> Tensor:
    """y: (..., out), x: (..., in), a: (r, in), b: (len(rows), r) -> (..., out); `y` is left as it is."""
    delta = scale * (x.to(y.dtype) @ a.to(y.dtype).T) @ b.to(y.dtype).T
    if rows is None:
        return y + delta
    padded = torch.zeros_like(y)
    padded[..., rows] = delta
    return y + padded


def add_low_rank(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, rows: Rows = None) -> Tensor:
    """As `low_rank_reference`, but `y` is changed in place and returned. Computes in y's dtype; A and B may be fp32."""
    dtype = y.dtype
    return _AddLowRank.apply(y, x.to(dtype), a.to(dtype), b.to(dtype), scale, rows)


class _AddLowRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, rows: Rows) -> Tensor:
        x2, y2 = x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        h = x2 @ a.T
        if isinstance(rows, Tensor):
            y2.index_add_(1, rows, h @ b.T, alpha=scale)
        else:
            (y2 if rows is None else y2[:, rows]).addmm_(h, b.T, alpha=scale)
        ctx.mark_dirty(y)
        ctx.save_for_backward(x2, a, b, h)
        ctx.scale, ctx.rows, ctx.shape = scale, rows, x.shape
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x2, a, b, h = ctx.saved_tensors
        need_x, need_a, need_b = ctx.needs_input_grad[1:4]
        g = grad.reshape(-1, grad.shape[-1])
        if ctx.rows is not None:
            g = g[:, ctx.rows]
        grad_b = (g.T @ h).mul_(ctx.scale) if need_b else None
        grad_h = (g @ b).mul_(ctx.scale) if need_a or need_x else None
        grad_a = grad_h.T @ x2 if need_a and grad_h is not None else None
        grad_x = (grad_h @ a).view(ctx.shape) if need_x and grad_h is not None else None
        return grad, grad_x, grad_a, grad_b, None, None
