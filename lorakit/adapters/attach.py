"""Attaching a saved adapter to its base model, and its factors without a model's numbers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from lorakit.adapters import peft
from lorakit.adapters.about import method_of
from lorakit.adapters.files import AdapterFile
from lorakit.adapters.foreign import MERGE, refuse_embeddings, refuse_kind
from lorakit.adapters.peft_tensors import (
    PREFIX,
    adapted_modules,
    name_in_file,
    plain_names,
    state_of,
)
from lorakit.adapters.same_base import refuse_other_base
from lorakit.errors import AdapterError, InputError, ModelError, did_you_mean
from lorakit.methods import Attachment
from lorakit.methods.reparam.lora import LoRAAttachment
from lorakit.nn.select import Roles, Site
from lorakit.nn.surgery import unchanged_on_error
from lorakit.nn.tied import untie


def attach_adapter(
    file: AdapterFile,
    model: nn.Module,
    roles: Roles,
    newly_initialised: Collection[str],
    check_base: bool = True,
) -> Attachment:
    """The adapter attached to its base model, with its numbers loaded.

    newly_initialised: parameters that the base's checkpoint does not hold, so the adapter must.
    check_base: require the weights and settings that the adapter was trained on. AdapterError: the
    base is another one, a tensor is not used, or a trained parameter is not filled; the model is
    then unchanged.
    """
    with unchanged_on_error(model):
        attachment = _attach_method(file, model, roles, newly_initialised, check_base)
        attachment.load_state(state_for(file, attachment))
        return attachment


def factors(
    file: AdapterFile,
    model: nn.Module,
    roles: Roles,
    newly_initialised: Collection[str],
    check_base: bool = True,
) -> list[tuple[Site, Tensor, Tensor]]:
    """(site, B (out, r) scaled by alpha/r, A (r, in)) of a LoRA adapter, in the model's order.

    With `check_base=False`, `model` may have shapes only (the meta device). AdapterError: another
    method, or as for `attach_adapter`.
    """
    attachment = _attach_method(file, model, roles, newly_initialised, check_base)
    if not isinstance(attachment, LoRAAttachment):
        raise AdapterError(
            f"{file.folder} is an adapter of {attachment.method.name}: it has no A and B"
        )
    state = state_of(attachment, file.tensors)
    found = []
    for site in attachment.sites:
        a = state[f"{site.name}.A"]
        b = state[f"{site.name}.B"] * attachment.deltas[site.name].scale
        if a.shape[1] != site.shape[1]:
            raise AdapterError(
                f"{file.folder} has {a.shape[1]} inputs at {site.name}, this model has "
                f"{site.shape[1]}"
            )
        found.append((site, b, a))
    return found


def state_for(file: AdapterFile, attachment: Attachment) -> dict[str, Tensor]:
    """The adapter's tensors under the names that `attachment.load_state` takes.

    AdapterError: a module's tensors are absent or have another shape.
    """
    if isinstance(attachment, LoRAAttachment):
        return state_of(attachment, file.tensors)
    return dict(file.tensors)


def _attach_method(
    file: AdapterFile,
    model: nn.Module,
    roles: Roles,
    newly_initialised: Collection[str],
    check_base: bool,
) -> Attachment:
    """The adapter's method attached to the model, with its initial numbers."""
    if file.about is None:
        return _attach_foreign(file, model, newly_initialised)
    if check_base:
        refuse_other_base(file, model)
    return method_of(file.about).attach(model, roles, file.about.fresh)


def _attach_foreign(
    file: AdapterFile, model: Any, newly_initialised: Collection[str]
) -> Attachment:
    """The LoRA of an adapter that lorakit did not write.

    PEFT may save an embedding, or an output layer, without the weight that it is tied to. The two
    are then untied, and the one that the adapter does not hold stays as it is.
    """
    assert file.peft_config is not None  # `read_adapter` refuses a folder with neither
    refuse_kind(file.peft_config)
    refuse_embeddings(file.folder, file.tensors, model, PREFIX)
    # what modules_to_save holds replaces the base's own, so it is attached as if it were new
    newly_initialised = {*newly_initialised, *plain_names(file.tensors)}
    method = peft.method_of(file.peft_config, file.tensors)
    try:
        tie_again = untie(model, newly_initialised)
    except ModelError as error:
        raise AdapterError(
            f"{file.folder} holds a part of tied weights: {error}. {MERGE}"
        ) from error
    try:
        _refuse_other_names(file, model, newly_initialised)
        return method.attach(model, {}, newly_initialised)
    except InputError:
        tie_again()
        raise


def _refuse_other_names(
    file: AdapterFile, model: nn.Module, newly_initialised: Collection[str]
) -> None:
    """AdapterError: a module or parameter is not in the model, or a parameter would be random."""
    modules = {name for name, _ in model.named_modules()}
    parameters = {name for name, _ in model.named_parameters()}
    for path in adapted_modules(file.tensors):
        if path not in modules:
            raise AdapterError(
                f"{file.folder} adapts {path}, which this model does not have"
                f"{did_you_mean(path, modules)}"
            )
    for name in sorted(newly_initialised):
        if name not in parameters:
            raise AdapterError(
                f"{file.folder} holds {name}, which this model does not have"
                f"{did_you_mean(name, parameters)}"
            )
    missing = sorted(n for n in newly_initialised if name_in_file(n) not in file.tensors)
    if missing:
        raise AdapterError(
            f"neither the base model nor {file.folder} holds {', '.join(missing[:4])}: these would "
            "be random numbers"
        )
