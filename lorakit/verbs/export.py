"""`lorakit export`: an adapter of any method in the format that another tool reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

import lorakit
from lorakit.adapters.about import About
from lorakit.adapters.attach import attach_adapter
from lorakit.adapters.file_form import form_of
from lorakit.adapters.files import read_adapter
from lorakit.adapters.intruders import Damping, damp
from lorakit.adapters.lower_rank import AskedRank, at_rank
from lorakit.adapters.plain_lora import attach_products, of_entire_modules, refuse_bias_change
from lorakit.adapters.save import save_adapter
from lorakit.bases.base import Base
from lorakit.errors import AdapterError, InputError, ToleranceError
from lorakit.methods import Attachment
from lorakit.methods.reparam._attachment import ReparamAttachment
from lorakit.nn.linear import dense_weight
from lorakit.nn.select import Site
from lorakit.runs.folder import new_folder, refuse_in_use
from lorakit.runs.pointer import Pointer
from lorakit.runs.source import Source, load_source, open_source
from lorakit.verbs.combine.member import about_of_foreign
from lorakit.verbs.merge_probe import Probe
from lorakit.verbs.proof import difference

Form = Literal["lora", "peft", "native"]
TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest: B A is summed in another order."""


@dataclass(frozen=True)
class Lowered:
    """An adapter at a lower rank, compared with the entire one."""

    rank: int
    trained: bool
    """Whether training made the adapter of this rank; False: the best approximation of dW."""
    error: float
    """||dW - dW_k||_F / ||dW||_F of the best approximation, over all sites."""
    worst: float
    """The same of one site, where it is largest."""
    worst_site: str
    logit_difference: float
    """From the entire adapter, relative to its largest logit."""


@dataclass(frozen=True)
class Exported:
    """The adapter that was written, and its comparison with the one that it was made of."""

    folder: Path
    adapter: str
    method: str
    form: Form
    parameters: int
    """Numbers in the file, with the head."""
    largest_rank: int | None
    """Of a module, in the form lora."""
    examples: int
    asked: str
    """The examples that both were compared on."""
    max_logit_difference: float
    tolerance: float = TOLERANCE
    damped: int | None = None
    """Intruder dimensions that were damped; None: none were looked for."""
    lower_rank: Lowered | None = None
    """What a lower rank changed; None: the rank is the adapter's own."""

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def export(
    pointer: Pointer,
    form: Form,
    to: Path,
    examples: int = 64,
    damping: Damping | None = None,
    rank: AskedRank | None = None,
) -> Exported:
    """Write the adapter to `to` in another form, read it back and compare its logits.

    lora: plain LoRA, which PEFT and every server of adapters read. peft: PEFT's own type of the
    method. native: lorakit's file. damping: intruder dimensions are damped first. rank: of each
    site, at most (`adapters.lower_rank`). Both have the form lora, one excludes the other, and the
    written adapter is compared with the changed one. InputError: `to` is in use, or an option does
    not go with another. AdapterError: the method does not have this form or rank. ToleranceError:
    the written adapter computes something else; it is removed.
    """
    refuse_in_use(to)
    _refuse_options(form, damping, rank)
    source = open_source(pointer)
    if source.adapter is None:
        raise AdapterError(f"{pointer.path} is a plain model: it has no adapter to export")
    base, attachment = load_source(source, source.model(pointer), pointer.any_base)
    assert attachment is not None
    name = attachment.method.name
    changed = _changed(source, base, attachment, rank or damping, examples)
    probe, attachment = changed.probe, changed.attachment
    wanted = probe.logits(base.model)
    with new_folder(to, "the adapter") as folder:
        about = _about(source, base, attachment)
        written = _write(folder, form, base, attachment, about)
        written.detach()
        again = read_adapter(folder)
        attach_adapter(again, base.model, base.roles, base.newly_initialised, not pointer.any_base)
        found = difference(wanted, probe.logits(base.model))
        if not found <= TOLERANCE:
            raise ToleranceError(
                f"the exported adapter's logits differ by {found:.2e} (relative; allowed "
                f"{TOLERANCE:g}), so it was not kept"
            )
    return Exported(
        folder=to,
        adapter=source.path,
        method=name,
        form=form,
        parameters=sum(tensor.numel() for tensor in again.tensors.values()),
        largest_rank=_largest_rank(again.tensors) if form == "lora" else None,
        examples=len(probe.items),
        asked=probe.why,
        max_logit_difference=found,
        damped=changed.damped,
        lower_rank=changed.lower_rank,
    )


def _refuse_options(form: Form, damping: Damping | None, rank: AskedRank | None) -> None:
    if damping is not None and form != "lora":
        raise InputError(f"damped intruder dimensions are a LoRA; take --as lora, not {form}")
    if rank is not None and form != "lora":
        raise InputError(f"an adapter of rank {rank.rank} is a LoRA; take --as lora, not {form}")
    if rank is not None and damping is not None:
        raise InputError(
            f"--rank {rank.rank} and --damp-intruders {damping.keep:g} both change dW; export twice"
        )


def _write(
    folder: Path, form: Form, base: Base, attachment: Attachment, about: About
) -> Attachment:
    """Write the adapter; returns the attachment that is on the base afterwards."""
    if form == "native":
        save_adapter(folder, attachment, about, base.tokenizer, in_peft_format=False)
        return attachment
    if form == "lora":
        attachment = _as_lora(base, attachment)
        about = replace(about, method=attachment.method.model_dump(mode="json"))
    elif form_of(attachment) is None:
        raise AdapterError(
            f"PEFT does not have {attachment.method.name} on these modules (it adapts entire ones, "
            "and not each method GPT-2's Conv1D); take --as lora, or merge the adapter"
        )
    save_adapter(folder, attachment, about, base.tokenizer)
    return attachment


def _as_lora(base: Base, attachment: Attachment) -> Attachment:
    """A LoRA with the same dW, on the base in the method's place.

    AdapterError: dW of a site has no factors.
    """
    return _replaced(base, attachment, _products(attachment))


@torch.no_grad()
def _damped(base: Base, attachment: Attachment, damping: Damping) -> tuple[Attachment, int]:
    """A LoRA with damped intruder dimensions in the method's place, and how many were damped."""
    products = []
    count = 0
    for site, b, a in _products(attachment):
        weight = dense_weight(site.module).detach()[site.index]
        new_b, new_a, intruders = damp(weight, b, a, damping)
        products.append((site, new_b, new_a))
        count += intruders
    return _replaced(base, attachment, products), count


@dataclass(frozen=True)
class _Changed:
    """The attachment that is written, and what was done to it."""

    probe: Probe
    attachment: Attachment
    damped: int | None = None
    lower_rank: Lowered | None = None


def _changed(
    source: Source,
    base: Base,
    attachment: Attachment,
    change: Damping | AskedRank | None,
    examples: int,
) -> _Changed:
    """The attachment after damping, or at a rank; None: as it is."""
    if isinstance(change, Damping):
        attachment, damped = _damped(base, attachment, change)
        return _Changed(Probe(source, base, examples), attachment, damped=damped)
    if change is None:
        return _Changed(Probe(source, base, examples), attachment)
    found = at_rank(attachment, change)
    probe = Probe(source, base, examples)
    entire = probe.logits(base.model)
    attachment = _replaced(base, attachment, found.products)
    lowered = Lowered(
        rank=change.rank,
        trained=found.trained,
        error=found.error,
        worst=found.worst,
        worst_site=found.worst_site,
        logit_difference=difference(entire, probe.logits(base.model)),
    )
    return _Changed(probe, attachment, lower_rank=lowered)


@torch.no_grad()
def _products(attachment: Attachment) -> list[tuple[Site, torch.Tensor, torch.Tensor]]:
    """(site, B with its scale, A). AdapterError: dW of a site has no factors."""
    if not isinstance(attachment, ReparamAttachment):
        raise AdapterError(
            f"{attachment.method.name} does not change weights by a product of low rank, so it is "
            "not a LoRA; `lorakit merge` writes it into the weights where that is possible"
        )
    found = []
    for site in attachment.sites:
        refuse_bias_change(attachment.deltas[site.name])
        factors = attachment.deltas[site.name].factors()
        if factors is None:
            raise AdapterError(
                f"the change of {site.name} by {attachment.method.name} does not have a low rank, "
                "so it is not a LoRA; `lorakit merge` writes it into the weights"
            )
        a, b, scale = factors
        found.append((site, (b * scale).clone(), a.clone()))
    return found


@torch.no_grad()
def _replaced(
    base: Base, attachment: Attachment, products: list[tuple[Site, torch.Tensor, torch.Tensor]]
) -> Attachment:
    """The products as a LoRA on the base, in the place of the method."""
    parameters = dict(base.model.named_parameters())
    head = {name: parameters[name].detach().clone() for name in attachment.newly_initialised}
    attachment.detach()
    return attach_products(of_entire_modules(products), head, base.model, base.roles)


def _about(source: Source, base: Base, attachment: Attachment) -> About:
    assert source.adapter is not None
    if source.adapter.about is not None:
        return replace(source.adapter.about, lorakit=lorakit.__version__)
    method = attachment.method.model_dump(mode="json")
    return replace(about_of_foreign(source, base, attachment.newly_initialised), method=method)


def _largest_rank(tensors: dict[str, torch.Tensor]) -> int:
    return max(t.shape[0] for name, t in tensors.items() if name.endswith(".lora_A.weight"))
