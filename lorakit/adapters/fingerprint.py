"""A fingerprint of a base model's weights: it tells whether an adapter meets the weights it was trained on.

Every number of every tensor counts: the sums of its bits over rows and over columns, and 1,024 numbers by
their place, go into a hash (a quarter of a second per gigabyte of float32 on one core). The weights of one
checkpoint are loaded in several dtypes, so a fingerprint has one digest for each dtype that the loaded numbers
can be rounded to: of float32 weights there are three, of bfloat16 weights one. Two fingerprints are compared by
the finest digest that both have. Layers of a quantized model are left out, since the numbers they were made
from are gone; what remains (embeddings, norms, biases) has digests of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorakit.nn.linear import is_quantized

VERSION = "4:"
"""Before the digests; other versions of the format cannot be compared with this one."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Finest first."""
UNQUANTIZED = "unquantized-"
"""Before the name of a digest that covers only what quantization leaves alone."""
VIEWS = (*DTYPES, *(UNQUANTIZED + dtype for dtype in DTYPES))
SAMPLES = 1024
# one in each 1024th of the tensor, at random within it: equal steps often stay in one column. NumPy
# keeps the numbers of this generator the same in every version
_SPREAD = torch.from_numpy(
    (np.arange(SAMPLES) + np.random.RandomState(0).random_sample(SAMPLES)) / SAMPLES
)


def fingerprint(model: Any, newly_initialised: Collection[str]) -> str:
    """Of the base's weights: `4:fp32=...,bf16=...,fp16=...`, the same before and after an adapter is put on.

    newly_initialised: names of the parameters that are not the checkpoint's, which are left out.
    """
    return VERSION + ",".join(
        f"{view}={digest}"
        for view, digest in digests_of(model, newly_initialised).digests().items()
    )


def digests_of(model: Any, newly_initialised: Collection[str], like: str | None = None) -> Digests:
    """The digests of a model in memory; like: as for `Digests`."""
    found = Digests(model, newly_initialised, like)
    for name, tensor in _weights(model):
        found.add(name, tensor)
    return found


def same(one: str, other: str | Mapping[str, str]) -> bool | None:
    """Whether two fingerprints are of the same weights; None: they have no digest in common."""
    first = _parsed(one)
    second = _parsed(other) if isinstance(other, str) else other
    for view in VIEWS:
        if view in first and view in second:
            return first[view] == second[view]
    return None


class Digests:
    """A fingerprint in the making: tensors come in any order, one at a time."""

    def __init__(self, model: Any, newly_initialised: Collection[str], like: str | None = None):
        """model: only its names and dtypes are read. like: another fingerprint; only the digest that `same` compares
        it by is then computed."""
        self.newly_initialised = newly_initialised
        embeddings = model.get_input_embeddings().weight
        self.embeddings = {
            name for name, tensor in model.named_parameters() if tensor is embeddings
        }
        quantized = any(is_quantized(module) for module in model.modules())
        views = _available(self._kept(model, quantized), quantized)
        if like is not None:
            theirs = _parsed(like)
            views = [view for view in views if view in theirs][:1]
        self.views = views
        self.found: dict[str, dict[str, bytes]] = {
            view.removeprefix(UNQUANTIZED): {} for view in views
        }

    def _kept(self, model: Any, quantized: bool) -> list[Tensor]:
        return [
            tensor
            for name, tensor in _weights(model)
            if self._counts(name) and (not quantized or self._unquantized(name, tensor))
        ]

    def _counts(self, name: str) -> bool:
        return name not in self.newly_initialised and ".delta." not in name

    def _unquantized(self, name: str, tensor: Tensor) -> bool:
        return name in self.embeddings or tensor.ndim < 2

    def add(self, name: str, tensor: Tensor) -> None:
        """tensor: the weight called `name`, of any shape, in the dtype of the model or of its file."""
        part = self._unquantized(name, tensor)
        if not self._counts(name) or not (part or any(view in DTYPES for view in self.views)):
            return
        for dtype, found in self.found.items():
            found[name] = (b"+" if part else b"-") + _digest(name, tensor.detach(), DTYPES[dtype])

    def digests(self) -> dict[str, str]:
        """View -> digest, in hexadecimal digits."""
        return {view: self._over(view) for view in self.views}

    def _over(self, view: str) -> str:
        whole = hashlib.blake2b(digest_size=16)
        for _, digest in sorted(self.found[view.removeprefix(UNQUANTIZED)].items()):
            if view in DTYPES or digest.startswith(b"+"):
                whole.update(digest)
        return whole.hexdigest()


def _weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and the buffers that a checkpoint holds, of a float dtype or not."""
    yield from model.named_parameters()
    saved = set(model.state_dict())
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in saved)


def _available(tensors: list[Tensor], quantized: bool) -> list[str]:
    """The views that these tensors, as they were loaded, can be rounded to."""
    loaded = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    wide = {torch.float32, torch.float64}
    possible = [name for name, dtype in DTYPES.items() if loaded <= {*wide, dtype}]
    part = [UNQUANTIZED + name for name in possible]
    return part if quantized else [*possible, *part]


def _digest(name: str, tensor: Tensor, dtype: torch.dtype) -> bytes:
    found = hashlib.blake2b(f"{name} {tuple(tensor.shape)}".encode(), digest_size=16)
    bits = _bits(tensor, dtype)
    if bits.numel() <= SAMPLES:
        found.update(bits.cpu().numpy().tobytes())
        return found.digest()
    packed = _packed(bits)
    places = (_SPREAD * bits.numel()).long().to(bits.device)
    for part in (packed.sum(1), packed.sum(0), bits.flatten()[places]):
        found.update(part.cpu().numpy().tobytes())
    return found.digest()


def _bits(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The bit patterns of the numbers as integers, (rows, numbers of a row), after rounding floats to `dtype`."""
    rows = tensor.reshape(tensor.shape[0] if tensor.ndim else 1, -1)
    if not rows.is_floating_point():
        return rows.long().contiguous()
    if rows.dtype == torch.float64:
        rows = (
            rows.float()
        )  # or bfloat16 would be rounded once where a float32 model's was rounded twice
    return rows.to(dtype).contiguous().view(torch.int32 if dtype == torch.float32 else torch.int16)


def _packed(bits: Tensor) -> Tensor:
    """The same bits as 64-bit integers, which are added up faster; int64 sums wrap around, on every device alike."""
    per = 8 // bits.element_size()
    if bits.shape[1] % per:
        flat = torch.nn.functional.pad(bits.flatten(), (0, -bits.numel() % per))
        return flat.view(torch.int64).unsqueeze(0)
    return bits.view(torch.int64)


def _parsed(text: str) -> dict[str, str]:
    """View -> digest; empty for a fingerprint of another version."""
    if not text.startswith(VERSION):
        return {}
    parts = (part.partition("=") for part in text[len(VERSION) :].split(","))
    return {view: digest for view, _, digest in parts if view in VIEWS and digest}
