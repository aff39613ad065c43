"""An exported adapter at a lower rank, compared with the entire one."""

from __future__ import annotations

from dataclasses import replace

from lorakit.adapters.lower_rank import AskedRank, Lowered, at_rank
from lorakit.adapters.plain_lora import of_entire_modules
from lorakit.bases.base import Base
from lorakit.methods import Attachment
from lorakit.verbs.low_rank import replaced_by
from lorakit.verbs.merge_probe import MergeProbe
from lorakit.verbs.proof import difference


def lowered(
    base: Base, attachment: Attachment, asked: AskedRank, probe: MergeProbe
) -> tuple[Attachment, Lowered]:
    """A LoRA of this rank in the method's place. probe: of the entire adapter."""
    products, found = at_rank(attachment, asked)
    changed = replaced_by(base, attachment, of_entire_modules(products))
    moved = difference(probe.before.logits, probe.logits(base.model))
    return changed, replace(found, logit_difference=moved)
