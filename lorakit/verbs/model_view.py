"""A model with its method, as plain data to be shown: its sites, its counts and its head."""

from __future__ import annotations

import re

from lorakit.events import HeadView, ModelPrepared, SiteGroup
from lorakit.methods import Attachment
from lorakit.methods.reparam._attachment import ReparamAttachment
from lorakit.nn.experts import expert_stacks
from lorakit.nn.surgery import delta_at
from lorakit.runs.attach import counts_of


def model_view(attachment: Attachment, head: HeadView | None) -> ModelPrepared:
    """head: as `head_view` gives it."""
    modules = {name.rsplit(".", 1)[0] for name in attachment.newly_initialised}
    return ModelPrepared(
        method=attachment.method.name,
        sites=site_groups(attachment),
        counts=counts_of(attachment).model_dump(),
        newly_initialised=tuple(sorted(modules)),
        head=head,
        stacked=_stacked(attachment),
    )


def _stacked(attachment: Attachment) -> tuple[str, ...]:
    """Where a method adapts weights: the frozen weights of experts that it leaves out."""
    if not isinstance(attachment, ReparamAttachment):
        return ()
    adapted = {site.path for site in attachment.sites}
    stacks = expert_stacks(attachment.model)
    found = {path for path, s in stacks.items() if not s.weight.requires_grad} - adapted
    return tuple(sorted({_without_number(path) for path in found}))


def _without_number(path: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".*", path)


_SiteKind = tuple[str, str, tuple[int, int] | None, int | None, float | None]
"""The first five fields of a `SiteGroup`."""


def site_groups(attachment: Attachment) -> tuple[SiteGroup, ...]:
    """The sites of an attachment, those that differ only in their layer's number together."""
    groups: dict[_SiteKind, list[int]] = {}
    for site in attachment.sites:
        delta = delta_at(site)
        weight = _without_number(site.name if site.expert is None else site.path)
        kind: _SiteKind = (site.target, weight, None, None, None)
        a = getattr(delta, "A", None)
        # of several adapters, A is a stack of theirs
        if a is not None and a.ndim == 2:
            kind = (site.target, weight, site.shape, a.shape[0], float(delta.scale))
        groups.setdefault(kind, []).append(sum(p.numel() for p in delta.parameters()))
    return tuple(SiteGroup(*kind, len(sizes), sum(sizes)) for kind, sizes in groups.items())
