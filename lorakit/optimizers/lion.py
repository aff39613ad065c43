"""lion: the sign of a momentum, so that every number moves by the learning rate.

    w <- w - rate sign(b1 m + (1 - b1) g) - rate decay w,   m <- b2 m + (1 - b2) g

Chen et al. 2023, Symbolic Discovery of Optimization Algorithms, arXiv 2302.06675. The code is that
of pytorch_optimizer (pip install 'lorakit[optimizers]').

When to use: to hold one number for each trained one instead of AdamW's two. Take a rate of three
to ten times less than AdamW's, and a weight decay as many times larger.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lorakit.optimizers import Attachment, Groups, Held, Optimizer, TorchOptimizer


class Lion(Optimizer):
    """pytorch_optimizer's Lion."""

    name: Literal["lion"] = "lion"
    needs: ClassVar[tuple[str, str] | None] = ("pytorch_optimizer", "optimizers")
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Of the momentum in the update."""
    beta2: float = Field(default=0.99, ge=0, lt=1)
    """Of the momentum that is kept."""

    def build(self, groups: Groups, rate: float, attachment: Attachment | None) -> TorchOptimizer:
        return self.package().Lion(groups, lr=rate, betas=(self.beta1, self.beta2))

    def held(self, shape: tuple[int, ...]) -> dict[str, Held]:
        return {"exp_avg": Held(shape)}


PLUGIN = Lion
