"""d_adaptation: AdamW whose step size is an estimate of the distance to the solution.

    m <- b1 m + (1 - b1) rate d g,   v <- b2 v + (1 - b2) g^2,   w <- w - m / (sqrt(v) + eps)
    d <- max(d, sum of rate d <g, s> / ((1 - sqrt(b2)) |s|_1)),   s a running mean of rate d g

with the products weighted by 1 / sqrt(v). Defazio and Mishchenko 2023, Learning-Rate-Free Learning
by D-Adaptation, algorithm 5, arXiv 2301.07733. The code is that of pytorch_optimizer (pip install
'lorakit[optimizers]'), which gives the numbers of the authors' package dadaptation 3.2; that one
does not have releases any more. Weight decay is decoupled.

When to use: to train without searching for a learning rate, with train.learning_rate=1. Its
estimate never falls; prodigy, by the same authors, usually finds a larger one sooner.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lorakit.optimizers import Attachment, Groups, Held, Optimizer, TorchOptimizer


class DAdaptation(Optimizer):
    """pytorch_optimizer's DAdaptAdam."""

    name: Literal["d_adaptation"] = "d_adaptation"
    needs: ClassVar[tuple[str, str] | None] = ("pytorch_optimizer", "optimizers")
    is_adam: ClassVar[bool] = True
    one_rate: ClassVar[bool] = True
    group_numbers: ClassVar[tuple[str, ...]] = ("step", "d", "numerator_weighted")
    d0: float = Field(default=1e-6, gt=0)
    """First estimate of the distance."""
    growth_rate: float | None = Field(default=None, gt=1)
    """Largest growth of the estimate in a step; null: any."""

    def build(self, groups: Groups, rate: float, attachment: Attachment | None) -> TorchOptimizer:
        growth = float("inf") if self.growth_rate is None else self.growth_rate
        return self.package().DAdaptAdam(
            list(groups), lr=rate, d0=self.d0, growth_rate=growth, weight_decouple=True
        )

    def held(self, shape: tuple[int, ...]) -> dict[str, Held]:
        return {key: Held(shape) for key in ("s", "exp_avg", "exp_avg_sq")}


PLUGIN = DAdaptation
