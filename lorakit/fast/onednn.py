"""oneDNN's linear operators: the ones that torch.compile writes into its own code.

Torch has no public name for them, so `works` tries them once; what uses them steps aside where they
are missing. `fast.products` and `fast.blocks` are the two tricks that they serve.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor


def times(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x: (..., in), weight: (out, in), plain or in blocks, bias: (out,) -> (..., out).

    Without a gradient; a tensor of its own, to which a delta may be added in place.
    """
    y = times_as_view(x.flatten(0, -2), weight, bias)
    # as torch's own linear does: autograd forbids changing a view in place that a Function made
    return torch.ops.aten._unsafe_view(y, (*x.shape[:-1], y.shape[-1]))


def times_as_view(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `times`, but the result may be a view, which a Function must not return."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def in_blocks(matrix: Tensor) -> Tensor:
    """matrix: (out, in) -> a copy as oneDNN lays it out, which `times` alone can read."""
    return torch.ops.mkldnn._reorder_linear_weight(matrix)


@cache
def works(dtype: torch.dtype) -> bool:
    """Whether the operators are there for `dtype`, tried once; bf16 takes a processor with it."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    x = torch.linspace(-1, 1, 64, dtype=dtype).view(2, 32)
    weight = torch.linspace(-1, 1, 256, dtype=dtype).view(8, 32)
    bias = torch.linspace(-1, 1, 8, dtype=dtype)
    try:
        found = [times(x, w, bias) for w in (weight, in_blocks(weight))]
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    # the first to ask may be under autocast, where a float32 product has another dtype
    with torch.autocast("cpu", enabled=False):
        wanted = F.linear(x, weight, bias)
    return all(torch.allclose(y, wanted, rtol=1e-2, atol=1e-2) for y in found)


@cache
def mkl_is_slow() -> bool:
    """Whether oneDNN is known to be faster than MKL in fp32: on AMD processors with AVX-512.

    It was measured on these alone; torch does not say whose processor it is.
    """
    if not torch.backends.mkl.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
