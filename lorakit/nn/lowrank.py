r"""The low-rank product: h = W0 x + (alpha/r) B A dropout(x)  (Hu et al. 2021, equation 3 and section 4.1).

In two steps, so that the deltas of one input, W_q and W_v of a layer say, share the first: `project` gives H = x A^T
with their A one under the other, and `add_product` adds s H B^T onto the output of the frozen layer, which is already
there. No scaled copy of A or B, no separate sum, and what is saved for the backward pass is x once and H. With
G = dL/dy, at the rows of a delta,

    H = D(x) A^T        dA = dH^T D(x)      dx = D(dH A)        D: dropout, drawn once for all of an input
    y += s H B^T        dB = s G^T H        dH = s G B

`low_rank_reference` is the same in plain operations: for tests, for reading, and for torch.compile, which fuses them.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorakit.nn.dropout import by_gaps, dropped

Rows = slice | Tensor | None
"""Which rows of a weight a site is: all of them (None), a contiguous block, or an index (per-head interleaving)."""


def low_rank_reference(
    y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, rows: Rows = None
) -> Tensor:
    """y: (..., out), x: (..., in), a: (r, in), b: (len(rows), r) -> (..., out); `y` is left as it is."""
    delta = scale * (x.to(y.dtype) @ a.to(y.dtype).T) @ b.to(y.dtype).T
    if rows is None:
        return y + delta
    padded = torch.zeros_like(y)
    padded[..., rows] = delta
    return y + padded


class Projection:
    """H of every delta that reads one input, computed when the first of them asks.

    parts: modules with a parameter `A` (r, in). dropout: of the input.
    """

    def __init__(self, parts: Sequence[Any], dropout: float):
        self.parts, self.dropout = tuple(parts), dropout
        self.latest: tuple[Any, ...] | None = None
        self.waiting: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "latest": None,
            "waiting": set(),
        }  # a copy of the model starts without activations

    def __call__(self, part: int, x: Tensor, dtype: torch.dtype) -> Tensor:
        """x: (..., in) -> (tokens, r) of delta number `part`, in `dtype`."""
        if len(self.parts) == 1:
            return self._project(x, dtype)
        if part not in self.waiting or not self._is_latest(x):
            self.latest = (weakref.ref(x), self._moment(), self._project(x, dtype))
            self.waiting = set(range(len(self.parts)))
        assert self.latest is not None
        projected = self.latest[-1]
        self.waiting.discard(part)
        if not self.waiting:
            self.latest = None
        start = sum(p.A.shape[0] for p in self.parts[:part])
        return projected[:, start : start + self.parts[part].A.shape[0]]

    def _is_latest(self, x: Tensor) -> bool:
        """The same tensor, in the same pass: nothing was updated since, nor switched."""
        return (
            self.latest is not None and self.latest[0]() is x and self.latest[1] == self._moment()
        )

    def _moment(self) -> tuple[Any, ...]:
        return (
            torch.is_grad_enabled(),
            self.parts[0].training,
            *(p.A._version for p in self.parts),
        )

    def _project(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        a = self.parts[0].A if len(self.parts) == 1 else torch.cat([part.A for part in self.parts])
        return project(x.to(dtype), a.to(dtype), self.dropout if self.parts[0].training else 0.0)


def project(x: Tensor, a: Tensor, p: float = 0.0) -> Tensor:
    """x: (..., in), a: (r, in) -> (tokens, r), of x with dropout p."""
    if p > 0 and not by_gaps(x, p):
        x, p = F.dropout(x, p), 0.0
    return _Project.apply(x, a, p)  # type: ignore[return-value]


def add_product(y: Tensor, h: Tensor, b: Tensor, scale: float, rows: Rows = None) -> Tensor:
    """y: (..., out), changed in place and returned; h: (tokens, r), b: (len(rows), r), which may be fp32."""
    return _AddProduct.apply(y, h, b.to(y.dtype), scale, rows)  # type: ignore[return-value]


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, p: float) -> Tensor:
        x2, index = x.reshape(-1, x.shape[-1]), None
        if p > 0:
            index = dropped(x2.numel(), p)
            x2 = x2.clone(memory_format=torch.contiguous_format)
            x2.view(-1).index_fill_(0, index, 0)
        ctx.save_for_backward(x2, a, index)
        ctx.shape, ctx.kept = x.shape, 1 / (1 - p)
        h = x2 @ a.T
        return h.mul_(ctx.kept) if p > 0 else h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x2, a, index = ctx.saved_tensors
        need_x, need_a, _ = ctx.needs_input_grad
        if index is not None:
            grad = grad * ctx.kept
        grad_x = grad @ a if need_x else None
        if grad_x is not None and index is not None:
            grad_x.view(-1).index_fill_(0, index, 0)
        return (
            None if grad_x is None else grad_x.view(ctx.shape),
            grad.T @ x2 if need_a else None,
            None,
        )


class _AddProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, h: Tensor, b: Tensor, scale: float, rows: Rows) -> Tensor:
        y2 = y.view(-1, y.shape[-1])
        if isinstance(rows, Tensor):
            y2.index_add_(1, rows, h @ b.T, alpha=scale)
        else:
            (y2 if rows is None else y2[:, rows]).addmm_(h, b.T, alpha=scale)
        ctx.mark_dirty(y)
        ctx.save_for_backward(h, b)
        ctx.scale, ctx.rows = scale, rows
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        h, b = ctx.saved_tensors
        _, need_h, need_b, *_ = ctx.needs_input_grad
        g = grad.reshape(-1, grad.shape[-1])
        if ctx.rows is not None:
            g = g[:, ctx.rows]
        grad_h = (g @ b).mul_(ctx.scale) if need_h else None
        grad_b = (g.T @ h).mul_(ctx.scale) if need_b else None
        return grad, grad_h, grad_b, None, None
