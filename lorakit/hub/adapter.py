"""An adapter folder: written whole or not at all, read strictly, never a pickle.

LoRA is written as PEFT writes it (adapter_config.json, adapter_model.safetensors); a method that PEFT has no name for
(full, bitfit) as trained.safetensors. Either way the header of the tensor file says what lorakit needs to put it back:
method, base model, revision, head, labels, and a fingerprint of the base weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lorakit.config import first_problem
from lorakit.disk import sync, sync_all
from lorakit.errors import AdapterError, InputError, did_you_mean
from lorakit.hub import peft
from lorakit.hub.base_name import base_name
from lorakit.hub.tensorfile import Kind, write_tensors
from lorakit.methods import Attachment, methods
from lorakit.methods.reparam.lora import LoRA, LoRAAttachment
from lorakit.nn.linear import is_quantized
from lorakit.nn.select import Roles, Site
from lorakit.nn.surgery import unchanged_on_error

log = logging.getLogger(__name__)

PEFT_FILE, PLAIN_FILE, CONFIG_FILE = "adapter_model.safetensors", "trained.safetensors", "adapter_config.json"

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class About:
    """What an adapter is for."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    base: str
    revision: str | None
    model_type: str
    head: str
    labels: list[str]
    task: dict[str, Any]
    """The task's own configuration, and so how the adapter is asked and scored."""
    max_length: int
    method: dict[str, Any]
    fresh: list[str]
    fingerprint: str
    lorakit: str
    model_config: dict[str, Any] = field(default_factory=dict)
    """Values of the base's configuration that the recipe set."""
    new_tokens: list[str] = field(default_factory=list)
    """Texts that were made tokens."""
    decode: dict[str, Any] = field(default_factory=dict)
    """How the recipe has a causal model write its answers."""
    base_id: str | None = None
    """What a base that is a folder is called on the hub (the recipe's `model.id`)."""


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as read: `about` is None for one that lorakit did not write."""

    folder: Path
    tensors: dict[str, Tensor]
    about: About | None
    peft_config: dict[str, Any] | None

    @property
    def base(self) -> str | None:
        """What to load: the folder that it was trained on, where that is not here its name on the hub."""
        if self.about is None:
            return (self.peft_config or {}).get("base_model_name_or_path")
        moved = self.about.base_id is not None and not os.path.isdir(self.about.base)
        return self.about.base_id if moved else self.about.base


def save(folder: Path, attachment: Attachment, about: About) -> None:
    """Write the adapter as `folder`; what is there is replaced once everything is on disk. InputError: disk, rights."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        if isinstance(attachment, LoRAAttachment):
            task_type = {"classification": "SEQ_CLS", "regression": "SEQ_CLS", "causal": "CAUSAL_LM"}[about.head]
            config = peft.config_of(attachment, base_name(about.base, about.base_id), about.revision, task_type)
            (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            file, tensors = PEFT_FILE, peft.tensors_of(attachment)
        else:
            file, tensors = PLAIN_FILE, attachment.state()
        kinds = {name: Kind(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
        header = {"lorakit": json.dumps(asdict(about), sort_keys=True)}
        write_tensors(temporary / file, kinds, tensors.__getitem__, header)
        sync_all(temporary)
        _replace(temporary, folder)
        sync(folder.parent)
    except OSError as error:
        raise InputError(
            f"cannot write the adapter to {folder}: {error}. What was there before is untouched."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(folder: Path) -> AdapterFile:
    """The files of an adapter folder. AdapterError: absent, damaged, not an adapter."""
    config = _read_config(folder)
    file = next((folder / name for name in (PEFT_FILE, PLAIN_FILE) if (folder / name).is_file()), None)
    if file is None:
        if (folder / "adapter_model.bin").is_file():
            raise AdapterError(
                f"{folder} holds adapter_model.bin, a pickle that could run code; save it as safetensors with PEFT"
            )
        raise AdapterError(f"{folder} holds no adapter ({PEFT_FILE} or {PLAIN_FILE})")
    try:
        with safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{file} is damaged or cut short: {error}; copy it again, or train again") from error
    if whole := [name for name, tensor in tensors.items() if tensor.dtype not in FLOATS]:
        dtype = str(tensors[whole[0]].dtype)[6:]
        raise AdapterError(f"{file} holds {whole[0]} in {dtype}; LoRA's numbers are floats of 16 bits or more")
    if broken := [name for name, tensor in tensors.items() if not _finite(tensor)]:
        raise AdapterError(f"{file} holds numbers that are not finite, in {broken[0]}")
    return AdapterFile(folder, tensors, _read_about(header, file), config)


def _finite(tensor: Tensor) -> bool:
    """By the least and the greatest number, which is one pass; torch.isfinite takes eighteen times as long."""
    return not tensor.numel() or all(math.isfinite(end) for end in torch.aminmax(tensor))


def attach(
    file: AdapterFile, model: nn.Module, roles: Roles, fresh: Collection[str], check_base: bool = True
) -> Attachment:
    """Put a saved adapter on its base model. Strict: every tensor is used, every trained parameter is filled.

    fresh: what the base's checkpoint does not hold, so the adapter must. AdapterError otherwise, or if the base's
    weights are not those that the adapter was trained on (`check_base=False` lets that pass); the model is then as
    it was before.
    """
    with unchanged_on_error(model):
        return _attach(file, model, roles, fresh, check_base)


def factors(
    file: AdapterFile, model: nn.Module, roles: Roles, fresh: Collection[str], check_base: bool = True
) -> list[tuple[Site, Tensor, Tensor]]:
    """Of a LoRA adapter: every site with B (out, r), scaled by alpha/r, and A (r, in), in the model's order.

    `model` may be of shapes alone (the meta device), with `check_base=False`. AdapterError: another method, or as
    `attach`.
    """
    attachment = _put(file, model, roles, fresh, check_base)
    if not isinstance(attachment, LoRAAttachment):
        raise AdapterError(f"{file.folder} is an adapter of {attachment.method.name}: it has no A and B")
    state = peft.state_of(attachment, file.tensors)
    for site in attachment.sites:
        if (width := state[f"{site.name}.A"].shape[1]) != site.shape[1]:
            raise AdapterError(f"{file.folder} reads {width} numbers at {site.name}, this model has {site.shape[1]}")
    return [
        (site, state[f"{site.name}.B"] * attachment.deltas[site.name].scale, state[f"{site.name}.A"])
        for site in attachment.sites
    ]


def _put(file: AdapterFile, model: nn.Module, roles: Roles, fresh: Collection[str], check_base: bool) -> Attachment:
    if file.about is None:
        assert file.peft_config is not None
        fresh = {*fresh, *peft.extra_names(file.tensors)}
        method = peft.method_of(file.peft_config, file.tensors)
        _refuse_unknown(file, model, fresh)
        return method.attach(model, {}, fresh)
    if check_base:
        refuse_other_base(file, _signs_of(model, file.about.fresh))
    return method_of(file.about).attach(model, roles, file.about.fresh)


def _attach(file: AdapterFile, model: nn.Module, roles: Roles, fresh: Collection[str], check_base: bool) -> Attachment:
    attachment = _put(file, model, roles, fresh, check_base)
    attachment.load_state(state_for(file, attachment))
    return attachment


def state_for(file: AdapterFile, attachment: Attachment) -> dict[str, Tensor]:
    """The adapter's tensors by the names that `attachment.load_state` takes. AdapterError: a module has none."""
    if isinstance(attachment, LoRAAttachment):
        return peft.state_of(attachment, file.tensors)
    return dict(file.tensors)


def start_from(file: AdapterFile, attachment: Attachment) -> list[str]:
    """Begin training where another adapter ended; returns the names that stay fresh.

    As in the reference code, only the last projection of the head may differ (another number of labels): it keeps its
    fresh values, the head's other layers are carried over.
    """
    if file.about is not None:
        refuse_other_base(file, _signs_of(attachment.model, file.about.fresh))
    state = state_for(file, attachment)
    own = attachment.state()
    differ = [n for n in own if n in attachment.fresh and (n not in state or state[n].shape != own[n].shape)]
    state |= {name: own[name] for name in differ}
    attachment.load_state(state)
    return differ


def fingerprint(model: nn.Module, fresh: Collection[str]) -> str:
    """Of the base weights: the same in every dtype and after any adapter was put on, another for another model.

    A hash of the signs of 1,024 numbers of every matrix of the checkpoint: rounding never changes a sign, and a model
    that was trained further has some of them turned. `2:` says that it is of this kind.
    """
    return _signs_of(model, fresh).fingerprint()


class Signs:
    """A fingerprint in the making; the parameters may come in any order, and one at a time."""

    def __init__(self, model: Any, fresh: Collection[str]):
        """model: tells names, and whether layers are quantized; its numbers are not read. fresh: left out."""
        embeddings = model.get_input_embeddings().weight
        self.embeddings = next(name for name, parameter in model.named_parameters() if parameter is embeddings)
        self.kind = _PART if any(is_quantized(module) for module in model.modules()) else _KIND
        self.fresh = fresh
        self.found: dict[str, bytes] = {}

    def add(self, name: str, parameter: Tensor) -> None:
        if parameter.ndim == 2 and name not in self.fresh and ".delta." not in name:
            places = (_SPREAD * parameter.numel()).long()
            rows, columns = places // parameter.shape[1], places % parameter.shape[1]
            signs = torch.signbit(parameter.detach()[rows, columns]).cpu().numpy()
            self.found[name] = f"{name} {tuple(parameter.shape)}".encode() + np.packbits(signs).tobytes()

    def fingerprint(self, kind: str | None = None) -> str:
        """kind: that of another fingerprint, to compare with; where the model has not that many signs, its own."""
        kind = _PART if _PART in (kind, self.kind) else _KIND
        digest = hashlib.blake2b(digest_size=16)
        for name, said in sorted(self.found.items()):
            if kind == _KIND or name == self.embeddings:
                digest.update(said)
        return kind + digest.hexdigest()


def _signs_of(model: Any, fresh: Collection[str]) -> Signs:
    signs = Signs(model, fresh)
    for name, parameter in model.named_parameters():
        if signs.kind == _KIND or name == signs.embeddings:
            signs.add(name, parameter)
    return signs


_KIND, _PART = "2:", "3:"
"""Before it: 64 numbers of every matrix in bfloat16, and nothing for a float16 model. 3: of the embeddings alone, for a
model whose layers are quantized: what they stand for is not what was quantized, and some signs are lost."""
# one in each 1024th of the matrix, at random within it: equal steps often stay in one column. numpy keeps this
# generator's numbers the same for good
_SPREAD = torch.from_numpy((np.arange(1024) + np.random.RandomState(0).random_sample(1024)) / 1024)


def refuse_other_base(file: AdapterFile, signs: Signs) -> None:
    """AdapterError: the base that `signs` are of is not the one that the adapter was trained on."""
    about = file.about
    if about is None:
        return
    kind = about.fingerprint[: len(_KIND)]
    if kind not in (_KIND, _PART) or (kind, signs.kind) == (_KIND, _PART):
        log.warning(
            "%s was written by lorakit %s, with a fingerprint of its base that cannot be compared with this one (%s is "
            "the one to give)", file.folder, about.lorakit, about.base,
        )  # fmt: skip
    elif signs.fingerprint(kind) != about.fingerprint:
        raise AdapterError(
            f"{file.folder} was trained on other weights than these: its base is {about.base} "
            f"(revision {about.revision or 'not recorded'}). Give that one, or --any-base to go on regardless."
        )


def method_of(about: About) -> Any:
    """With the fields that it was trained with. AdapterError: none that this lorakit has."""
    try:
        return methods.get(str(about.method["name"])).model_validate(about.method)
    except (ValidationError, KeyError, InputError) as error:
        why = first_problem(error) if isinstance(error, ValidationError) else error
        raise AdapterError(f"the adapter's method is none that this lorakit knows: {about.method} ({why})") from error


def _read_config(folder: Path) -> dict[str, Any] | None:
    if not folder.is_dir():
        siblings = [str(p) for p in folder.parent.glob("*") if p.is_dir()] if folder.parent.is_dir() else []
        raise AdapterError(f"there is no adapter folder {folder}{did_you_mean(str(folder), siblings)}")
    file = folder / CONFIG_FILE
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{file} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{file} is damaged: a mapping is expected")
    try:
        peft.Fields.model_validate(config)
    except ValidationError as error:
        raise AdapterError(f"{file} is damaged: {first_problem(error)}") from error
    return config


def _read_about(header: Mapping[str, str], file: Path) -> About | None:
    if "lorakit" not in header:
        if file.name == PLAIN_FILE:
            raise AdapterError(f"{file} has lost its header, so what it is for cannot be known")
        if not (file.parent / CONFIG_FILE).is_file():
            raise AdapterError(f"{file.parent} has no {CONFIG_FILE}: r and alpha are not known, and are not guessed")
        return None
    try:
        return _ABOUT.validate_json(header["lorakit"])
    except ValidationError as error:
        raise AdapterError(f"{file} has a header that this lorakit does not read: {first_problem(error)}") from error


_ABOUT = TypeAdapter(About)


def _refuse_unknown(file: AdapterFile, model: nn.Module, fresh: Collection[str]) -> None:
    modules = {name for name, _ in model.named_modules()}
    for path in (
        key[len(peft.PREFIX) : -len(".lora_A.weight")] for key in file.tensors if key.endswith(".lora_A.weight")
    ):
        if path not in modules:
            raise AdapterError(f"{file.folder} adapts {path}, which this model has not{did_you_mean(path, modules)}")
    known = {name for name, _ in model.named_parameters()}
    unknown = sorted(name for name in fresh if name not in known)
    missing = sorted(name for name in fresh if f"{peft.PREFIX}{name}" not in file.tensors)
    if unknown:
        raise AdapterError(
            f"{file.folder} holds {unknown[0]}, which this model has not{did_you_mean(unknown[0], known)}"
        )
    if missing:
        raise AdapterError(
            f"neither the base model nor {file.folder} holds {', '.join(missing[:4])}: these would be random numbers"
        )


def _replace(temporary: Path, folder: Path) -> None:
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        try:
            temporary.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(folder)


__all__ = ["About", "AdapterFile", "LoRA", "attach", "factors", "fingerprint", "read", "save", "start_from"]
