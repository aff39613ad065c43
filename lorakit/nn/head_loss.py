r"""The loss of a frozen output layer, without its logits in memory.

For hidden states h (n, d), W (V, d) and labels y, with logits z = h W^T and smoothing e,

    loss = sum_i  logsumexp(z_i) - (1 - e) z_i[y_i] - e mean(z_i)
    dloss/dz = softmax(z) - (1 - e) onehot(y) - e / V,    dloss/dh = dloss/dz W

W is not trained, so dh is all that the backward pass needs; it is formed together with the loss, `CHUNK` rows at a
time, and (n, V), which is the largest tensor of a small model's step, never exists. (As in Liger Kernel, Hsu et al.
2024, arXiv 2410.10989, and Cut Cross-Entropy, Wijmans et al. 2024, arXiv 2411.09009.)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorakit.nn.products import times

CHUNK = 256


def head_loss(
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    smoothing: float = 0.0,
    operands: tuple[Tensor, Tensor | None] | None = None,
) -> Tensor:
    """h: (n, d), weight: (V, d), which gets no gradient, bias: (V,), labels: (n,) -> the sum, a float32 scalar.

    operands: W and W^T as `nn.products.times` takes them, where that is faster.
    """
    if torch.is_autocast_enabled(h.device.type):
        dtype = torch.get_autocast_dtype(h.device.type)
        h, weight = h.to(dtype), weight.to(dtype)
    return _HeadLoss.apply(h, weight, bias, labels, smoothing, operands)  # type: ignore[return-value]


def head_loss_reference(
    h: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float = 0.0
) -> Tensor:
    """The same in plain operations."""
    return F.cross_entropy(
        F.linear(h, weight, bias).float(), labels, reduction="sum", label_smoothing=smoothing
    )


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        smoothing: float,
        operands: Any,
    ) -> Tensor:
        exact = torch.promote_types(h.dtype, torch.float32)
        total = torch.zeros((), dtype=exact, device=h.device)
        grad = torch.empty_like(h) if ctx.needs_input_grad[0] else None
        for start in range(0, len(h), CHUNK):
            part = slice(start, start + CHUNK)
            logits = (
                F.linear(h[part], weight, bias)
                if operands is None
                else times(h[part], operands[0], bias)
            )
            z = logits.to(exact)
            y = labels[part].unsqueeze(1)
            total -= (1 - smoothing) * z.gather(1, y).sum()
            if smoothing:
                total -= smoothing * z.mean(1).sum()
            top = z.amax(1, keepdim=True)
            exps = z.sub_(
                top
            ).exp_()  # in place: a second (CHUNK, V), or a second exp, would be seen in the step
            sums = exps.sum(1, keepdim=True)
            total += (top + sums.log()).sum()
            if grad is not None:
                dz = exps.div_(sums)
                dz.scatter_add_(1, y, torch.full_like(sums, smoothing - 1))
                if smoothing:
                    dz -= smoothing / z.shape[1]
                dz = dz.to(weight.dtype)
                grad[part] = dz @ weight if operands is None else times(dz, operands[1])
        if grad is not None:
            ctx.save_for_backward(grad)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (dh,) = ctx.saved_tensors
        return (dh * grad).to(dh.dtype), None, None, None, None, None
