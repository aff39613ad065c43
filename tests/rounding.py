"""How far two ways to the same numbers may be apart, on any processor: from sizes, not from what
one machine gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

TINY = 1024
"""Terms on the longest way through a tiny model of `tests/conftest.py`: two blocks of products over
32 and 48 numbers, attention, norms and the head, there and back."""


def rounding(dtype: torch.dtype, terms: int) -> float:
    """The largest difference of two sums of `terms` products, added in any order, relative to the
    largest term.

    Each is off by less than terms * eps / 2 (Higham 2002, section 3.1).
    """
    return terms * torch.finfo(dtype).eps


def assert_near(found: Any, wanted: Any, terms: int = TINY) -> None:
    """Tensors, or lists or mappings of them, are equal but for rounding, relative to the largest
    number of all."""
    pairs = list(_pairs(found, wanted))
    assert pairs, "nothing to compare"
    largest = max((float(b.abs().max()) for _, b in pairs if b.numel()), default=0.0)
    for a, b in pairs:
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        furthest = float((a - b).abs().max()) if b.numel() else 0.0
        assert furthest <= rounding(b.dtype, terms) * largest, (
            f"{furthest:.2e} apart, the largest is {largest:.2e}"
        )


def _pairs(found: Any, wanted: Any) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(wanted, Tensor):
        yield found.detach(), wanted.detach()
        return
    if isinstance(wanted, Mapping):
        assert found.keys() == wanted.keys()
        found, wanted = [found[key] for key in wanted], list(wanted.values())
    for a, b in zip(found, wanted, strict=True):
        yield from _pairs(a, b)
