"""One (out, in) view of the linear layers there are: torch's Linear and the Conv1D of GPT-2, which stores (in, out)."""

from __future__ import annotations

from torch import Tensor, nn


def is_conv1d(module: nn.Module) -> bool:
    """GPT-2's `Conv1D`, by its marks and not by import: transformers costs a second that this file does not need."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_conv1d(module)


def weight_of(module: nn.Module) -> Tensor:
    """W as (out, in): a view, so an in-place change reaches the module's own parameter."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.T if is_conv1d(module) else weight


def features(module: nn.Module) -> tuple[int, int]:
    """(out, in)"""
    out, in_ = weight_of(module).shape
    return out, in_
