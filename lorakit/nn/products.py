r"""Products with frozen weights on a CPU, by oneDNN: for fp32 where torch takes MKL, and with weights laid out once.

    y = x W^T + b        dx = G W        db = sum of G's rows        W (out, in) is frozen, b may train

Torch multiplies fp32 by MKL: on an AMD EPYC with AVX-512 oneDNN takes 0.8 of its time. (bf16 is oneDNN's already.) For
each product oneDNN copies W into blocks; where there are few rows, one for each beam say, the copy is as dear as the
product. `laid_out` makes it once.

The operators are those that torch.compile writes into its own code. Where they are not there, or gain nothing, and for
a weight that trains, is quantized or spread over processes, it is the layer's own forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorakit.nn.linear import is_conv1d, weight_of


def use_fast_products(model: nn.Module) -> None:
    """Let the model's linear layers multiply this way where it is faster; they keep their names, weights and hooks."""
    for module in model.modules():
        if type(module) is nn.Linear or (is_conv1d(module) and not isinstance(module, _Products)):
            module.__class__ = _with_products(type(module))  # type: ignore[assignment] # as torch's parametrize does


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x: (..., in), weight: (out, in), which gets no gradient, bias: (out,) -> (..., out), by whichever is faster."""
    return _Product.apply(x, weight, bias) if _faster(x, weight) else F.linear(x, weight, bias)  # type: ignore[return-value]


@contextmanager
def laid_out(model: nn.Module) -> Iterator[None]:
    """Inside, where nothing trains and no weight changes, W of every layer is there a second time, in oneDNN's blocks.

    Left out where that would take more than half of the memory that is free.
    """
    layers = [module for module in model.modules() if isinstance(module, _Products) and _can_lay_out(module.weight)]
    if sum(layer.weight.nbytes for layer in layers) > _free_bytes() / 2:
        layers = []
    try:
        for layer in layers:
            layer.blocks = torch.ops.mkldnn._reorder_linear_weight(weight_of(layer).detach())
        yield
    finally:
        for layer in layers:
            layer.blocks = None


class _Products(nn.Module):
    """In front of a linear layer's class."""

    weight: Tensor
    bias: Tensor | None
    blocks: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.blocks is not None and x.dtype == self.weight.dtype and not torch.is_grad_enabled():
            return _by_onednn(x, self.blocks, self.bias)
        if self.weight.requires_grad or not _faster(x, weight_of(self)):
            return super().forward(x)  # type: ignore[misc]
        return _Product.apply(x, weight_of(self), self.bias)  # type: ignore[return-value]


@cache
def _with_products(cls: type[nn.Module]) -> type[nn.Module]:
    return type(cls.__name__, (_Products, cls), {})


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _by_onednn(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        need_x, _, need_bias = ctx.needs_input_grad
        grad_x = _by_onednn(grad, weight.T, None) if need_x else None
        return grad_x, None, grad.flatten(0, -2).sum(0) if need_bias else None


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = torch.ops.mkldnn._linear_pointwise(x.flatten(0, -2), weight, bias, "none", [], "")
    # as torch's own linear does: a delta is added to it in place, which autograd forbids for a view made in a Function
    return torch.ops.aten._unsafe_view(y, (*x.shape[:-1], y.shape[-1]))


def _faster(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.ndim > 1
        and x.numel() > x.shape[-1]  # of one row, the copy of W is dearer than the product
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and type(weight) in (Tensor, nn.Parameter)
        and _mkl_is_slow()
        and _works(torch.float32)
    )


def _can_lay_out(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and type(weight) is nn.Parameter and _works(weight.dtype)


@cache
def _works(dtype: torch.dtype) -> bool:
    """Tried once: the operators are no public interface of torch, and bf16 takes a processor that has it."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    x, weight, bias = (torch.linspace(-1, 1, n, dtype=dtype) for n in (64, 256, 8))
    x, weight = x.view(2, 32), weight.view(8, 32)
    try:
        blocks = torch.ops.mkldnn._reorder_linear_weight(weight)
        found = [_by_onednn(x, w, bias) for w in (weight, blocks)]
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return all(torch.allclose(y, F.linear(x, weight, bias), rtol=1e-2, atol=1e-2) for y in found)


@cache
def _mkl_is_slow() -> bool:
    """Measured on an AMD EPYC with AVX-512; elsewhere fp32 is left to torch."""
    if not torch.backends.mkl.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def _free_bytes() -> float:
    """What the system can give without swapping (Linux); elsewhere as much as there is."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("inf")
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), float("inf"))
