"""schedule_free: AdamW without a schedule: the weights that are scored are an average of the steps.

    y = (1 - b1) z + b1 x,   z <- z - rate g(y) / sqrt(v),   x <- (1 - c) x + c z,   c = 1 / t

Gradients are taken at y; x, the average, is what is evaluated and saved. Defazio et al. 2024, The
Road Less Scheduled, arXiv 2405.15682. The code is the authors' (pip install 'lorakit[optimizers]').
An evaluation changes nothing: y is put back as it was, to the bit, and not computed from x again.

When to use: where the number of steps is not known beforehand, because every evaluation is of an
averaged state that could be the last. It needs train.schedule=constant, with a warm-up, and a rate
of one to ten times AdamW's.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lorakit.errors import RecipeError
from lorakit.optimizers import Attachment, Groups, Held, Optimizer, TorchOptimizer


class ScheduleFree(Optimizer):
    """schedulefree's AdamWScheduleFree."""

    name: Literal["schedule_free"] = "schedule_free"
    needs: ClassVar[tuple[str, str] | None] = ("schedulefree", "optimizers")
    is_adam: ClassVar[bool] = True
    averages: ClassVar[bool] = True
    group_numbers: ClassVar[tuple[str, ...]] = ("k", "weight_sum", "lr_max")
    r: float = Field(default=0.0, ge=0)
    """Weight of step t in the average: t^r."""
    weight_lr_power: float = Field(default=2.0, ge=0)
    """Weight of a step of the warm-up: its rate to this power."""

    def build(self, groups: Groups, rate: float, attachment: Attachment | None) -> TorchOptimizer:
        if any(group["betas"][0] == 0 for group in groups):
            raise RecipeError("train.optimizer schedule_free needs a first adam_betas above 0")
        optimizer = self.package().AdamWScheduleFree(
            list(groups), lr=rate, r=self.r, weight_lr_power=self.weight_lr_power
        )
        optimizer.train()
        return optimizer

    def held(self, shape: tuple[int, ...]) -> dict[str, Held]:
        return {"z": Held(shape), "exp_avg_sq": Held(shape)}


PLUGIN = ScheduleFree
