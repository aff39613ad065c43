"""Merging file by file: the base's safetensors are read tensor by tensor, changed, and written, and no model is built.

What is held at a time is one tensor, in float32 where it changes, and the adapter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from lorakit.adapters import adapter
from lorakit.adapters.adapter import AdapterFile
from lorakit.adapters.fingerprint import Digests
from lorakit.adapters.tensorfile import Kind, write_tensors
from lorakit.disk import sync
from lorakit.errors import ModelError
from lorakit.methods import Attachment
from lorakit.methods.reparam.lora import LoRAAttachment
from lorakit.methods.subset._subset import SubsetAttachment
from lorakit.models import Model
from lorakit.models._files import opened, weight_files
from lorakit.models._load import DTYPES, Base, outline
from lorakit.models._numbers import refuse_merged, refuse_tensor
from lorakit.models._trust import is_trusted
from lorakit.nn.freeze import tied
from lorakit.nn.select import Site
from lorakit.nn.surgery import fold


@dataclass(frozen=True)
class Part:
    """One file of the base. keys: parameter -> what the file calls it."""

    file: Path
    keys: Mapping[str, str]


class Shards:
    """A base, an adapter for it, and the files that hold the base."""

    def __init__(self, base: Base, file: AdapterFile, attachment: Attachment, parts: list[Part]):
        """base: its shapes, as `models._load.outline` gives them, with the adapter put on."""
        self.base, self.file, self.attachment, self.parts = base, file, attachment, parts
        self.state = adapter.state_for(file, attachment)
        self.sites: dict[str, list[Site]] = {}
        for site in attachment.sites:
            self.sites.setdefault(f"{site.path}.weight", []).append(site)

    def write(self, folder: Path, dtype: str, check_base: bool = True) -> None:
        """The merged weights as model.safetensors, or as many files as the base has, with an index.

        The sum is formed in float32 and rounded once. AdapterError, after the last file: the base's weights are not
        those that the adapter was trained on (`check_base=False` lets that pass).
        """
        if check_base:
            adapter.refuse_other_settings(self.file, self.base.model)
        like = self.file.about.fingerprint if self.file.about else ""
        digests = Digests(self.base.model, self.attachment.newly_initialised, like)
        wanted, index, size = DTYPES[dtype], {}, 0
        shapes = {
            name: tuple(p.shape)
            for name, p in self.base.model.named_parameters()
            if ".delta." not in name
        }
        kept = {name for part in self.parts for name in part.keys}  # a head that the base has too
        for i, part in enumerate(self.parts):
            last = i == len(self.parts) - 1
            names = [
                *part.keys,
                *(name for name in sorted(self.attachment.newly_initialised - kept) if last),
            ]
            single = len(self.parts) == 1
            file = folder / (
                "model.safetensors"
                if single
                else f"model-{i + 1:05}-of-{len(self.parts):05}.safetensors"
            )
            kinds = {name: Kind(shapes[name], wanted) for name in names}
            write_tensors(file, kinds, self._merged(part, digests, wanted))
            sync(file)
            index |= dict.fromkeys(names, file.name)
            size += sum(prod(shapes[name]) for name in names) * wanted.itemsize
        if len(self.parts) > 1:
            content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))}
            (folder / "model.safetensors.index.json").write_text(
                json.dumps(content, indent=2) + "\n"
            )
        if check_base:
            adapter.refuse_other_base(self.file, digests)

    def _merged(self, part: Part, digests: Digests, wanted: torch.dtype) -> Callable[[str], Tensor]:
        def read(name: str) -> Tensor:
            if name not in part.keys:
                return self.state[name]
            with opened(part.file) as tensors:
                tensor: Tensor = tensors.get_tensor(part.keys[name])
            refuse_tensor(part.keys[name], tensor, str(part.file))
            digests.add(name, tensor)
            if name in self.sites:
                return self._folded(name, tensor)
            return self.state.get(name, tensor)

        def fitting(name: str) -> Tensor:
            tensor = read(name).to(wanted)
            refuse_merged(name, tensor)
            return tensor

        return fitting

    def _folded(self, name: str, tensor: Tensor) -> Tensor:
        sites = self.sites[name]
        layer, attachment = sites[0].module, self.attachment
        assert isinstance(attachment, LoRAAttachment)
        empty, whole = layer.weight, nn.Parameter(tensor.float(), requires_grad=False)
        layer.weight = whole
        try:
            for site in sites:
                delta = attachment.deltas[site.name]
                delta.A, delta.B = (
                    nn.Parameter(self.state[f"{site.name}.{letter}"].float()) for letter in "AB"
                )
                fold(site, delta)
            return whole.detach()
        finally:
            layer.weight = empty


def shards(spec: Model, head: str, labels: Sequence[str], file: AdapterFile) -> Shards | None:
    """The adapter on the shapes of its base, and where the base's numbers are.

    None where it cannot be done by file: names that only transformers can translate, quantized weights, new tokens,
    tied weights of which the adapter holds one, a method that never merges. AdapterError: the
    adapter does not fit. ModelError: it cannot be merged, or the base is not available.
    """
    if spec.quantize or spec.new_tokens or is_trusted():
        return None
    if file.about and not adapter.method_of(file.about).merges:
        return None
    files = weight_files(spec)
    base = outline(spec, head, labels)  # reads the headers of these files
    parts = _parts(base.model, base.newly_initialised, files)
    if parts is None:
        return None
    tied_before = tied(base.model)
    attachment = adapter.attach(
        file, base.model, base.roles, base.newly_initialised, check_base=False
    )
    if len(tied(base.model)) < len(tied_before):
        return None  # the files hold one weight where there are two now
    if why := attachment.why_unmergeable():
        raise ModelError(f"{file.folder} cannot be merged: {why}")
    if not isinstance(attachment, (LoRAAttachment, SubsetAttachment)):
        return None
    return Shards(base, file, attachment, parts)


def _parts(
    model: nn.Module, newly_initialised: frozenset[str], files: Sequence[Path]
) -> list[Part] | None:
    """Which parameter each tensor is; None where one is not found, has another shape, or is of no float dtype."""
    shapes = {name: p.shape for name, p in model.named_parameters()}
    aliases: dict[int, str] = {id(p): name for name, p in model.named_parameters()}
    own = {alias: aliases[id(p)] for alias, p in model.named_parameters(remove_duplicate=False)}
    found, parts = set(newly_initialised), []
    if set(model.state_dict()) - set(own):  # a buffer that is saved: its values are not known here
        return None
    for file in files:
        with opened(file) as tensors:
            keys = {}
            for key in tensors.keys():  # noqa: SIM118 (not a mapping)
                name = next((own[n] for n in _spellings(key, model) if n in own), None)
                if name is None or name in found:
                    continue  # a head of another task, or the same weight again
                part = tensors.get_slice(key)
                if tuple(part.get_shape()) != tuple(shapes[name]) or part.get_dtype() not in (
                    "F32",
                    "F16",
                    "BF16",
                ):
                    return None
                keys[name] = key
                found.add(name)
        if keys:
            parts.append(Part(file, keys))
    return parts if parts and found == set(shapes) else None


def _spellings(key: str, model: nn.Module) -> list[str]:
    """A checkpoint is of the model with its head, or of what is under it; old ones have LayerNorm's gamma and beta."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    modern = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )
    return [modern, prefix + modern, modern.removeprefix(prefix)]
