"""LoFT's step (see `loft`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

RIDGE_OF_A = 1e-8
RIDGE_OF_B = 1e-6
"""Added to A A^T and to B^T B before they are inverted: B starts as zero."""


class LoFTAdamW(torch.optim.Optimizer):
    """pairs: (A, B, s) of each delta; other parameters are AdamW's."""

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        defaults: dict[str, Any],
        pairs: Sequence[tuple[Tensor, Tensor, float]],
    ):
        self.pairs = {}
        for A, B, scale in pairs:
            self.pairs[A] = (B, True, scale)
            self.pairs[B] = (A, False, scale)
        super().__init__(groups, defaults | {"weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p in self.pairs:
                    self._pair_step(p, group)
                else:
                    self._plain_step(p, group)

    def _plain_step(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        b1, b2 = group["betas"]
        assert p.grad is not None
        state["step"] += 1
        state["exp_avg"].mul_(b1).add_(p.grad, alpha=1 - b1)
        state["exp_avg_sq"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
        p.mul_(1 - group["lr"] * group["weight_decay"])
        denominator = state["exp_avg_sq"].sqrt() / math.sqrt(1 - b2 ** state["step"])
        rate = group["lr"] / (1 - b1 ** state["step"])
        p.addcdiv_(state["exp_avg"], denominator.add_(group["eps"]), value=-rate)

    def _pair_step(self, p: Tensor, group: dict[str, Any]) -> None:
        """Everything is written for B, (rows, r); for A (r, in) with A and B transposed."""
        other, is_a, scale = self.pairs[p]
        assert p.grad is not None
        basis = other.T if is_a else other
        gradient = p.grad.T if is_a else p.grad
        inverse = _inverse(basis, RIDGE_OF_B if is_a else RIDGE_OF_A)
        gradient = gradient @ inverse / scale
        state = self.state[p]
        first = not state
        if first:
            count, r = gradient.shape
            state |= {"step": 0, "turns": 0, "exp_avg": torch.zeros_like(p)}
            state["row_products"] = p.new_zeros(count, r, r)
        momentum = state["exp_avg"].T if is_a else state["exp_avg"]
        products = state["row_products"]
        if not first:
            old = state["other"].T if is_a else state["other"]
            carried = old @ basis.T @ inverse
            momentum = momentum @ carried
            products = carried.T @ products @ carried
        state["other"] = other.detach().clone()
        b1, b2 = group["betas"]
        state["step"] += 1
        momentum = momentum * b1 + gradient * (1 - b1)
        outer = gradient[:, :, None] * gradient[:, None, :]
        state["row_products"] = (products * b2 + outer * (1 - b2)).contiguous()
        state["exp_avg"] = (momentum.T if is_a else momentum).contiguous()
        # a step without a rate, the first of a warm-up, is nobody's turn
        state["turns"] += int(group["lr"] > 0)
        # B first: as it starts at zero, A would have nothing to go by
        if group["lr"] > 0 and (state["turns"] % 2 == 0) == is_a:
            update = _update(momentum, state, basis, group)
            update = update @ basis.T @ inverse / scale
            p.mul_(1 - group["lr"] * group["weight_decay"])
            rate = group["lr"] / (1 - b1 ** state["step"])
            p.add_(update.T if is_a else update, alpha=-rate)


def _inverse(basis: Tensor, ridge: float) -> Tensor:
    """(basis basis^T)^-1, (r, r)."""
    eye = torch.eye(basis.shape[0], device=basis.device, dtype=basis.dtype)
    return torch.linalg.inv(basis @ basis.T + ridge * eye)


def _update(momentum: Tensor, state: Any, basis: Tensor, group: dict[str, Any]) -> Tensor:
    """U: the step of AdamW of the full matrix, (rows, in), without the rate."""
    correction = math.sqrt(1 - group["betas"][1] ** state["step"])
    squares = (basis * (state["row_products"] @ basis)).sum(1).clamp(min=0)
    return momentum @ basis / (squares.sqrt() / correction).add_(group["eps"])
