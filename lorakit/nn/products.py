r"""Products with frozen weights on a CPU, by oneDNN: for fp32 where torch takes MKL, and with weights laid out once.

    y = x W^T + b        dx = G W        db = sum of G's rows        W (out, in) is frozen, b may train

Torch multiplies fp32 by MKL: on an AMD EPYC with AVX-512 oneDNN takes 0.8 of its time. (bf16 is oneDNN's already.) For
each product oneDNN copies W into blocks: a tenth of a bf16 product of 2,048 rows, and with few rows, one for each beam
say, as dear as the product. `laid_out` makes the copy once.

The operators are those that torch.compile writes into its own code. Where they are not there, or gain nothing, and for
a weight that trains, is quantized or spread over processes, it is the layer's own forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorakit.nn.linear import is_conv1d, weight_of

GROUPS = Path("/sys/fs/cgroup")
"""Where Linux keeps the limits of containers and of a cluster's jobs."""


def use_fast_products(model: nn.Module) -> None:
    """Let the model's linear layers multiply this way where it is faster; they keep their names, weights and hooks."""
    for module in model.modules():
        if type(module) is nn.Linear or (is_conv1d(module) and not isinstance(module, _Products)):
            module.__class__ = _with_products(type(module))  # type: ignore[assignment] # as torch's parametrize does


@contextmanager
def laid_out(model: nn.Module, training: bool = False) -> Iterator[None]:
    """Inside, W of every layer is there again, in oneDNN's blocks; where W changes they are made anew.

    training: of layers that do not train, and W^T too, where the numbers stay the same to the bit: what memory is free
    decides no result. That is tried: in fp32 they do not with torch 2.11 and older. Left out where the copies would
    take more than half of it, and in training more than an eighth.
    """
    layers = [
        m
        for m in model.modules()
        if isinstance(m, _Products) and m.blocks is None and _can_lay_out(m.weight)
    ]
    if training:
        layers = [
            m for m in layers if not m.weight.requires_grad and _same_in_blocks(m.weight.dtype)
        ]
    copies, share = (2, 1 / 8) if training else (1, 1 / 2)
    if copies * sum(m.weight.nbytes for m in layers) > _free_bytes() * share:
        layers = []
    for layer in layers:
        layer.blocks = _Blocks(training)
    try:
        yield
    finally:
        for layer in layers:
            layer.blocks = None


def laid_out_bytes(model: nn.Module) -> int:
    """Of the copies that there are now."""
    layers = [m for m in model.modules() if isinstance(m, _Products) and m.blocks is not None]
    return sum(
        len(layer.blocks.made) * layer.weight.nbytes for layer in layers if layer.blocks is not None
    )


class _Blocks:
    """W and W^T in oneDNN's blocks, each made when it is first asked for, and anew when W has changed."""

    def __init__(self, both: bool):
        self.both, self.state, self.made = both, (0, 0), {}

    def of(self, weight: Tensor, transposed: bool) -> Tensor:
        state = (weight.data_ptr(), weight._version)
        if state != self.state:
            self.state, self.made = state, {}
        if transposed not in self.made:
            matrix = weight.detach()
            self.made[transposed] = torch.ops.mkldnn._reorder_linear_weight(
                matrix.T if transposed else matrix
            )
        return self.made[transposed]

    def __deepcopy__(self, memo: dict[int, Any]) -> _Blocks:
        return _Blocks(self.both)


class _Products(nn.Module):
    """In front of a linear layer's class."""

    weight: Tensor
    bias: Tensor | None
    blocks: _Blocks | None = None

    def forward(self, x: Tensor) -> Tensor:
        operands = operands_of(self, x)
        return super().forward(x) if operands is None else _Product.apply(x, *operands, self.bias)  # type: ignore[misc]


@cache
def _with_products(cls: type[nn.Module]) -> type[nn.Module]:
    return type(cls.__name__, (_Products, cls), {})


def operands_of(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None] | None:
    """W (out, in), and W^T where x will have a gradient, as `times` takes them for x; None: leave it to the layer."""
    if torch.compiler.is_compiling() or not isinstance(layer, _Products):
        return None
    weight, back = weight_of(layer), torch.is_grad_enabled() and x.requires_grad
    plain = (
        x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.ndim > 1
        and type(layer.weight) is nn.Parameter
    )
    if (
        not plain
        or torch.is_autocast_enabled("cpu")
        or (torch.is_grad_enabled() and weight.requires_grad)
    ):
        return None
    if x.dtype == torch.float32 and x.numel() <= x.shape[-1]:  # one row: MKL's is the faster way
        return None
    if layer.blocks is not None and (layer.blocks.both or not back):
        return layer.blocks.of(weight, False), layer.blocks.of(weight, True) if back else None
    if x.dtype == torch.float32 and _is_onednns(x.dtype) and _works(x.dtype):
        return weight, weight.T
    return None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, transposed: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        ctx.transposed = transposed  # frozen, and blocks cannot be saved as other tensors are
        return times(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        need_x, _, _, need_bias = ctx.needs_input_grad
        grad_x = times(grad, ctx.transposed, None) if need_x else None
        return grad_x, None, None, grad.flatten(0, -2).sum(0) if need_bias else None


def times(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x: (..., in), weight: (out, in), plain or in blocks, bias: (out,) -> (..., out), without a gradient."""
    y = torch.ops.mkldnn._linear_pointwise(x.flatten(0, -2), weight, bias, "none", [], "")
    # as torch's own linear does: a delta is added to it in place, which autograd forbids for a view made in a Function
    return torch.ops.aten._unsafe_view(y, (*x.shape[:-1], y.shape[-1]))


def _is_onednns(dtype: torch.dtype) -> bool:
    """Whether such products are oneDNN's with plain weights too."""
    return dtype != torch.float32 or _mkl_is_slow()


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
        found = [times(x, w, bias) for w in (weight, blocks)]
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    with torch.autocast(
        "cpu", enabled=False
    ):  # in which a float32 product would be another dtype's
        wanted = F.linear(x, weight, bias)
    return all(torch.allclose(y, wanted, rtol=1e-2, atol=1e-2) for y in found)


def _same_in_blocks(dtype: torch.dtype) -> bool:
    """Whether a product with plain weights, in training, is the same to the bit as with weights in blocks."""
    return _is_onednns(dtype) and _kernels_agree(dtype)


@cache
def _kernels_agree(dtype: torch.dtype) -> bool:
    """Tried once: oneDNN may choose another kernel, with another order of sums, for weights in blocks."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(768, 384, generator=generator).to(dtype)
    for weight in (matrix, matrix.T):
        blocks = torch.ops.mkldnn._reorder_linear_weight(weight)
        for rows in (2, 16, 130):
            x = torch.randn(rows, weight.shape[1], generator=generator).to(dtype)
            if not torch.equal(times(x, weight), times(x, blocks)):
                return False
    return True


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
    """What the system, and each control group that the process is in, can give (Linux); elsewhere there is no limit."""
    free = [math.inf]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free.append(
            1024.0
            * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
        )
    with suppress(OSError, IndexError):
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").split("0::/")[1].splitlines()[0]
        group = GROUPS / own
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):  # `max`: no limit; the outermost has no such file
                most, used = (
                    int((folder / name).read_text()) for name in ("memory.max", "memory.current")
                )
                free.append(most - used)
    return min(free)
