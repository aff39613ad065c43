r"""CoTo: LoRA whose sites are switched on with a probability that grows during training.

The probability rises linearly from `first` to 1 over the share `until` of the steps. A site that is
off in a step takes no part in it and is not updated; an evaluation has all sites on. Which are on
is drawn from `seed` and the number of the step. Zhuang et al. 2025, arXiv 2506.05713.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from lorakit.methods.reparam import MethodDelta, Ranked


class CoTo(Ranked):
    """Progressive activation of adapters."""

    name: Literal["coto"] = "coto"
    needs_whole_parameters: ClassVar[bool] = True
    first: float = Field(default=0.1, gt=0, le=1)
    """Probability of a site at the first step."""
    until: float = Field(default=0.75, gt=0, le=1)
    """Share of the steps after which every site is on."""
    seed: int = Field(default=0, ge=0)

    def before_step(self, deltas: Mapping[str, MethodDelta], step: int, total: int) -> None:
        draw = random.Random(f"{self.seed} {step}")
        share = step / max(1.0, self.until * total)
        probability = min(1.0, self.first + (1 - self.first) * share)
        dropped = [draw.random() >= probability for _ in deltas]
        if all(dropped):  # a step must train something
            dropped[draw.randrange(len(dropped))] = False
        for d, is_dropped in zip(deltas.values(), dropped, strict=True):
            d.dropped = is_dropped


PLUGIN = CoTo
