"""Whether numbers are numbers, in one pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WIDE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def is_finite(tensor: Tensor) -> bool:
    """False where it holds NaN or infinity; whole numbers and floats of 8 bits are not looked at, and pass.

    By the least and the greatest number; torch.isfinite takes eighteen times as long.
    """
    if tensor.dtype not in _WIDE or not tensor.numel():
        return True
    return all(math.isfinite(end) for end in torch.aminmax(tensor.detach()))
