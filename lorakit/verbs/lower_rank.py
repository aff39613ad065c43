"""An exported adapter at a lower rank, compared with the entire one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lorakit.adapters.lower_rank import AskedRank, at_rank
from lorakit.adapters.plain_lora import of_entire_modules
from lorakit.bases.base import Base
from lorakit.methods import Attachment
from lorakit.verbs.low_rank import replaced_by
from lorakit.verbs.merge_probe import MergeProbe
from lorakit.verbs.proof import difference


@dataclass(frozen=True)
class Lowered:
    """What a lower rank changed."""

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


def lowered(
    base: Base, attachment: Attachment, asked: AskedRank, probe: MergeProbe
) -> tuple[Attachment, Lowered]:
    """A LoRA of this rank in the method's place. probe: of the entire adapter."""
    found = at_rank(attachment, asked)
    entire: Tensor = probe.before.logits
    changed = replaced_by(base, attachment, of_entire_modules(found.products))
    return changed, Lowered(
        rank=asked.rank,
        trained=found.trained,
        error=found.error,
        worst=found.worst,
        worst_site=found.worst_site,
        logit_difference=difference(entire, probe.logits(base.model)),
    )
