"""Writing safetensors: tensors are asked for one at a time, and equal tensors are equal bytes.

The library's own writer holds all of them at once, and writes the entries of its metadata in an order of chance.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""As the format calls the dtypes that are written."""
_AT_ONCE = 1 << 20
"""Bytes that wait for each other: one call for a hundred small tensors takes 0.6 to 0.7 of a hundred calls' time."""
_PIECES = 1024
"""What one call takes (IOV_MAX)."""


class Kind(NamedTuple):
    """What is said of a tensor before its numbers are there."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def write_tensors(
    file: Path,
    kinds: Mapping[str, Kind],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """The tensors of `kinds`; what the widest dtype has goes first, so that every number is aligned.

    Format: 8 bytes with the header's size, the header (JSON), the numbers. read: name -> its tensor, detached, of that
    shape, which is cast to that dtype. Not synced: that is the caller's. OSError: the disk.
    ValueError: another shape than was said.
    """
    order = sorted(kinds, key=lambda name: -kinds[name].dtype.itemsize)
    begin, header = (
        0,
        dict[str, Any](__metadata__=dict(sorted({"format": "pt", **(metadata or {})}.items()))),
    )
    for name in order:
        shape, dtype = kinds[name]
        end = begin + prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (begin, end)}
        begin = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb", buffering=0) as opened:
        size, held = 0, [memoryview(len(text).to_bytes(8, "little") + text)]
        for name in order:
            held.append(_numbers(name, read(name), kinds[name]))
            size += len(held[-1])
            if size > _AT_ONCE:
                _write(opened.fileno(), held)
                size = 0
        _write(opened.fileno(), held)


def _numbers(name: str, tensor: Tensor, kind: Kind) -> memoryview:
    if tensor.shape != kind.shape:
        raise ValueError(f"{name} is {tuple(tensor.shape)}, and {kind.shape} was said")
    plain = tensor.to("cpu", kind.dtype).contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data


def _write(handle: int, held: list[memoryview]) -> None:
    """All of `held`, which is empty then."""
    while held:
        written = os.writev(handle, held[:_PIECES])
        while held and written >= len(held[0]):
            written -= len(held.pop(0))
        if held:
            held[0] = held[0][written:]
