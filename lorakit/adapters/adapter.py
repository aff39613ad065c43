"""An adapter folder: written whole or not at all, read strictly, never a pickle.

LoRA is written as PEFT writes it (adapter_config.json, adapter_model.safetensors); a method that PEFT has no name for
(full, bitfit) as trained.safetensors. Either way the header of the tensor file says what lorakit needs to put it back:
method, base model, revision, head, labels, and a fingerprint of the base weights.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lorakit.adapters import peft
from lorakit.adapters.base_config import changed_settings, settings_of
from lorakit.adapters.base_name import base_name
from lorakit.adapters.digest import KEY as DIGESTS
from lorakit.adapters.digest import changed, digests
from lorakit.adapters.fingerprint import Digests, digests_of, fingerprint, same
from lorakit.adapters.foreign import MERGE, refuse_embeddings, refuse_kind
from lorakit.adapters.tensorfile import Kind, write_tensors
from lorakit.config import first_problem
from lorakit.disk import scratch_for, sync, sync_all
from lorakit.errors import AdapterError, InputError, ModelError, did_you_mean
from lorakit.methods import Attachment, methods
from lorakit.methods.reparam.lora import LoRA, LoRAAttachment
from lorakit.nn.select import Roles, Site
from lorakit.nn.surgery import unchanged_on_error
from lorakit.nn.tied import untie

log = logging.getLogger(__name__)

PEFT_FILE, PLAIN_FILE, CONFIG_FILE = (
    "adapter_model.safetensors",
    "trained.safetensors",
    "adapter_config.json",
)

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
    base_config: dict[str, Any] = field(default_factory=dict)
    """The settings of the base's configuration that decide its outputs; empty: not recorded."""
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


def save(folder: Path, attachment: Attachment, about: About, tokenizer: Any = None) -> None:
    """Write the adapter as `folder`, with its tokenizer if one is given; what is there is replaced once everything is
    on disk. InputError: disk, rights."""
    temporary = scratch_for(folder)
    try:
        temporary.mkdir(parents=True)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        config = None
        if isinstance(attachment, LoRAAttachment):
            task_type = {
                "classification": "SEQ_CLS",
                "regression": "SEQ_CLS",
                "causal": "CAUSAL_LM",
            }[about.head]
            config = peft.config_of(
                attachment, base_name(about.base, about.base_id), about.revision, task_type
            )
            (temporary / CONFIG_FILE).write_text(
                json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
            )
            file, tensors = PEFT_FILE, peft.tensors_of(attachment)
        else:
            file, tensors = PLAIN_FILE, attachment.state()
        kinds = {name: Kind(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
        header = {"lorakit": json.dumps(asdict(about), sort_keys=True)}
        found = digests(temporary, header, config and json.loads(json.dumps(config)), tensors)
        header[DIGESTS] = json.dumps(found, sort_keys=True)
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
    file = next(
        (folder / name for name in (PEFT_FILE, PLAIN_FILE) if (folder / name).is_file()), None
    )
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
        raise AdapterError(
            f"{file} is damaged or cut short: {error}; copy it again, or train again"
        ) from error
    if whole := [name for name, tensor in tensors.items() if tensor.dtype not in FLOATS]:
        dtype = str(tensors[whole[0]].dtype)[6:]
        raise AdapterError(
            f"{file} holds {whole[0]} in {dtype}; LoRA's numbers are floats of 16 bits or more"
        )
    _refuse_absurd(file, tensors)
    _refuse_changed(file, header, config, tensors)
    return AdapterFile(folder, tensors, _read_about(header, file), config)


LARGE, ABSURD = 1e4, 1e15
"""Sizes of a number from which it is named in a warning, and from which the file is refused."""


def _refuse_absurd(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """By the least and the greatest number, which is one pass; torch.isfinite takes eighteen times as long."""
    for name, tensor in tensors.items():
        if not tensor.numel():
            continue
        ends = [float(end) for end in torch.aminmax(tensor)]
        if not all(map(math.isfinite, ends)):
            raise AdapterError(f"{file} holds numbers that are not finite, in {name}")
        largest = max(ends, key=abs)
        if abs(largest) >= ABSURD:
            raise AdapterError(
                f"{file} holds {largest:g} in {name}: no training gives such a number. The file is damaged; copy it "
                "again, or train again"
            )
        if abs(largest) >= LARGE:
            log.warning("%s holds %g in %s, which is unusually large", file, largest, name)


def _refuse_changed(
    file: Path,
    header: Mapping[str, str],
    config: Mapping[str, Any] | None,
    tensors: Mapping[str, Tensor],
) -> None:
    """AdapterError: something is not as lorakit wrote it. A warning where the file has no digests."""
    if DIGESTS not in header:
        writer = "an older lorakit" if "lorakit" in header else "another program"
        log.warning(
            "%s has no digests (%s wrote it), so a damaged number in it would not be noticed",
            file,
            writer,
        )
        return
    if parts := changed(header[DIGESTS], digests(file.parent, header, config, tensors)):
        raise AdapterError(
            f"{file.parent}: {', '.join(parts)} changed after the adapter was saved; copy the folder again, or train "
            "again"
        )


def attach(
    file: AdapterFile,
    model: nn.Module,
    roles: Roles,
    newly_initialised: Collection[str],
    check_base: bool = True,
) -> Attachment:
    """Put a saved adapter on its base model. Strict: every tensor is used, every trained parameter is filled.

    newly_initialised: what the base's checkpoint does not hold, so the adapter must. AdapterError otherwise, or if the base's
    weights are not those that the adapter was trained on (`check_base=False` lets that pass); the model is then as
    it was before.
    """
    with unchanged_on_error(model):
        return _attach(file, model, roles, newly_initialised, check_base)


def factors(
    file: AdapterFile,
    model: nn.Module,
    roles: Roles,
    newly_initialised: Collection[str],
    check_base: bool = True,
) -> list[tuple[Site, Tensor, Tensor]]:
    """Of a LoRA adapter: every site with B (out, r), scaled by alpha/r, and A (r, in), in the model's order.

    `model` may be of shapes alone (the meta device), with `check_base=False`. AdapterError: another method, or as
    `attach`.
    """
    attachment = _put(file, model, roles, newly_initialised, check_base)
    if not isinstance(attachment, LoRAAttachment):
        raise AdapterError(
            f"{file.folder} is an adapter of {attachment.method.name}: it has no A and B"
        )
    state = peft.state_of(attachment, file.tensors)
    for site in attachment.sites:
        if (width := state[f"{site.name}.A"].shape[1]) != site.shape[1]:
            raise AdapterError(
                f"{file.folder} reads {width} numbers at {site.name}, this model has {site.shape[1]}"
            )
    return [
        (
            site,
            state[f"{site.name}.B"] * attachment.deltas[site.name].scale,
            state[f"{site.name}.A"],
        )
        for site in attachment.sites
    ]


def _put(
    file: AdapterFile,
    model: nn.Module,
    roles: Roles,
    newly_initialised: Collection[str],
    check_base: bool,
) -> Attachment:
    if file.about is None:
        assert file.peft_config is not None
        refuse_kind(file.peft_config)
        refuse_embeddings(file.folder, file.tensors, model, peft.PREFIX)
        newly_initialised = {*newly_initialised, *peft.extra_names(file.tensors)}
        method = peft.method_of(file.peft_config, file.tensors)
        return _put_foreign(file, model, method, newly_initialised)
    if check_base:
        refuse_other_base(file, digests_of(model, file.about.fresh, file.about.fingerprint))
        refuse_other_settings(file, model)
    return method_of(file.about).attach(model, roles, file.about.fresh)


def _put_foreign(
    file: AdapterFile, model: Any, method: LoRA, newly_initialised: Collection[str]
) -> Attachment:
    """PEFT saves an embedding, or an output layer, without the one that it is tied to: it stays."""
    try:
        tie_again = untie(model, newly_initialised)
    except ModelError as error:
        said = f"{file.folder} holds a part of tied weights: {error}. {MERGE}"
        raise AdapterError(said) from error
    try:
        _refuse_unknown(file, model, newly_initialised)
        return method.attach(model, {}, newly_initialised)
    except InputError:
        tie_again()
        raise


def _attach(
    file: AdapterFile,
    model: nn.Module,
    roles: Roles,
    newly_initialised: Collection[str],
    check_base: bool,
) -> Attachment:
    attachment = _put(file, model, roles, newly_initialised, check_base)
    attachment.load_state(state_for(file, attachment))
    return attachment


def state_for(file: AdapterFile, attachment: Attachment) -> dict[str, Tensor]:
    """The adapter's tensors by the names that `attachment.load_state` takes. AdapterError: a module has none."""
    if isinstance(attachment, LoRAAttachment):
        return peft.state_of(attachment, file.tensors)
    return dict(file.tensors)


def start_from(file: AdapterFile, attachment: Attachment) -> list[str]:
    """Begin training where another adapter ended; returns the names that stay newly initialised.

    As in the reference code, only the last projection of the head may differ (another number of labels): it keeps its
    newly initialised values, the head's other layers are carried over.
    """
    if file.about is not None:
        refuse_other_base(
            file, digests_of(attachment.model, file.about.fresh, file.about.fingerprint)
        )
        refuse_other_settings(file, attachment.model)
    state = state_for(file, attachment)
    own = attachment.state()
    differ = [
        n
        for n in own
        if n in attachment.newly_initialised and (n not in state or state[n].shape != own[n].shape)
    ]
    state |= {name: own[name] for name in differ}
    attachment.load_state(state)
    return differ


def refuse_other_settings(file: AdapterFile, model: Any) -> None:
    """AdapterError: the base's configuration makes another computation of the same weights."""
    if file.about is None or not file.about.base_config:
        return
    if changes := changed_settings(file.about.base_config, settings_of(model.config)):
        raise AdapterError(
            f"{file.folder} was trained on {file.about.base} with another configuration: {'; '.join(changes[:4])}. "
            "Give the base as it was, or --any-base to use this one regardless."
        )


def refuse_other_base(file: AdapterFile, found: Digests) -> None:
    """AdapterError: the base that `found` is of is not the one that the adapter was trained on."""
    about = file.about
    if about is None:
        return
    agreed = same(about.fingerprint, found.digests())
    if agreed is None:
        log.warning(
            "%s was written by lorakit %s with a fingerprint of its base that cannot be compared with this model: "
            "make sure that it is %s",
            file.folder,
            about.lorakit,
            about.base,
        )
    elif not agreed:
        raise AdapterError(
            f"{file.folder} was trained on other weights than these: its base is {about.base} "
            f"(revision {about.revision or 'not recorded'}). Give that one, or --any-base to use these regardless."
        )


def method_of(about: About) -> Any:
    """With the fields that it was trained with. AdapterError: none that this lorakit has."""
    try:
        return methods.get(str(about.method["name"])).model_validate(about.method)
    except (ValidationError, KeyError, InputError) as error:
        why = first_problem(error) if isinstance(error, ValidationError) else error
        raise AdapterError(
            f"the adapter's method is none that this lorakit knows: {about.method} ({why})"
        ) from error


def _read_config(folder: Path) -> dict[str, Any] | None:
    if not folder.is_dir():
        siblings = (
            [str(p) for p in folder.parent.glob("*") if p.is_dir()]
            if folder.parent.is_dir()
            else []
        )
        raise AdapterError(
            f"there is no adapter folder {folder}{did_you_mean(str(folder), siblings)}"
        )
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
            raise AdapterError(
                f"{file.parent} has no {CONFIG_FILE}: r and alpha are not known, and are not guessed"
            )
        return None
    try:
        return _ABOUT.validate_json(header["lorakit"])
    except ValidationError as error:
        raise AdapterError(
            f"{file} has a header that this lorakit does not read: {first_problem(error)}"
        ) from error


_ABOUT = TypeAdapter(About)


def _refuse_unknown(
    file: AdapterFile, model: nn.Module, newly_initialised: Collection[str]
) -> None:
    modules = {name for name, _ in model.named_modules()}
    for path in (
        key[len(peft.PREFIX) : -len(".lora_A.weight")]
        for key in file.tensors
        if key.endswith(".lora_A.weight")
    ):
        if path not in modules:
            raise AdapterError(
                f"{file.folder} adapts {path}, which this model has not{did_you_mean(path, modules)}"
            )
    known = {name for name, _ in model.named_parameters()}
    unknown = sorted(name for name in newly_initialised if name not in known)
    missing = sorted(
        name for name in newly_initialised if f"{peft.PREFIX}{name}" not in file.tensors
    )
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


__all__ = [
    "About",
    "AdapterFile",
    "LoRA",
    "attach",
    "factors",
    "fingerprint",
    "read",
    "save",
    "start_from",
]
