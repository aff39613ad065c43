"""Tensors and files of torch that are not what they seem: small on the disk, and huge or of another kind in memory."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from lorakit.errors import AdapterError

PICKLED = 16_000_000
"""Bytes at the beginning of an older file that are looked at."""


def refuse_odd(tensor: Tensor, what: str) -> None:
    """AdapterError unless it is ordinary: dense, real, on the CPU, with a number in memory for each of its numbers.

    A stride of 0 lets one number stand for billions, and the first copy asks for all of them.
    """
    if tensor.is_quantized or tensor.layout is not torch.strided or tensor.is_nested:
        kind = "quantized" if tensor.is_quantized else "sparse or nested"
        raise AdapterError(
            f"{what} is {kind}; a plain tensor is expected: save it dense, in float32"
        )
    if tensor.device.type != "cpu":
        raise AdapterError(
            f"{what} has no numbers (it is on the device {tensor.device.type}); save the whole model"
        )
    if tensor.is_complex():
        raise AdapterError(f"{what} is {str(tensor.dtype)[6:]}; real numbers are expected")
    needed, there = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if needed > there:
        raise AdapterError(
            f"{what} has shape {tuple(tensor.shape)} ({needed:,} bytes) over {there:,} bytes of numbers; copy it "
            "before it is saved (`.contiguous()`)"
        )


def refuse_larger_inside(file: Path) -> None:
    """AdapterError: a zip whose parts are larger than the file, which torch does not write, or a pickle that asks for
    memory itself. Of any other fault torch.load says what it is."""
    try:
        pickled = _pickled(file)
    except AdapterError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return
    if b"bytearray" in pickled:  # bytearray(n) takes n bytes, and `weights_only` lets it through
        raise AdapterError(
            f"{file} asks for a bytearray, which no state dict needs, so it is not read"
        )


def _pickled(file: Path) -> bytes:
    """What describes the tensors: of an older file of torch, which is no zip, its beginning."""
    with file.open("rb") as opened:
        if not zipfile.is_zipfile(opened):
            opened.seek(0)
            return opened.read(PICKLED)
    size = file.stat().st_size
    with zipfile.ZipFile(file) as opened_zip:
        parts = opened_zip.infolist()
        inside = sum(part.file_size for part in parts)
        if inside > size:
            raise AdapterError(
                f"{file} holds {inside:,} bytes in {size:,}; a file of torch is not compressed"
            )
        return b"".join(opened_zip.read(part) for part in parts if part.filename.endswith(".pkl"))
