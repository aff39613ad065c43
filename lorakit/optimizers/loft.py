"""loft: AdamW on A and B as if dW itself were trained by AdamW within their subspaces.

A and B take turns, B first. For B (rows, r) with A (r, in) fixed, and the same for A transposed:

    P = (A A^T)^-1,   g <- g_B P / s,   R = A_old A^T P
    m <- b1 m R + (1 - b1) g,   C_i <- b2 R^T C_i R + (1 - b2) g_i^T g_i   for each row i
    U = (m A / (1 - b1^t)) / (sqrt(diag(A^T C_i A) / (1 - b2^t)) + eps),   B <- B - rate U A^T P / s

R carries the moments over to the new A; C_i (r, r) is the second moment of a row before it is
projected. s is the delta's scale: dW moves by `rate` times the projected U whatever alpha is.
Tastan et al. 2025, LoFT: Low-Rank Adaptation That Behaves Like Full Fine-Tuning, arXiv 2505.21289.
As in the authors' code (tnurbek/loft), A A^T and B^T B get a small ridge. Differs from that code:
weight decay is multiplied by the rate, as AdamW's; the division by s makes alpha = r unnecessary;
gradients are clipped as everywhere in lorakit, and not after they are rescaled; and C is carried
over by R, as m is, where the code takes R transposed. What else trains, a new head, is AdamW's.

When to use: with methods whose dW is s B A, where LoRA lags behind full fine-tuning. It holds r
numbers for each trained one, and forms a matrix of the size of the weight in each step, so it is
for small ranks.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lorakit.errors import RecipeError
from lorakit.optimizers import Attachment, Groups, Held, Optimizer, TorchOptimizer
from lorakit.optimizers._base import COUNT


class LoFT(Optimizer):
    """Pairs of A and B that are updated in turn."""

    name: Literal["loft"] = "loft"
    eps: float = Field(default=1e-4, gt=0)
    """Added to the root of the second moment of dW, whose numbers are smaller than A's and B's."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)

    def build(self, groups: Groups, rate: float, attachment: Attachment | None) -> TorchOptimizer:
        from lorakit.optimizers._loft import LoFTAdamW

        defaults = {"lr": rate, "betas": (self.beta1, self.beta2), "eps": self.eps}
        return LoFTAdamW(groups, defaults, self._pairs(attachment))

    def _pairs(self, attachment: Attachment | None) -> list[tuple[Any, Any, float]]:
        """(A, B, s) of each delta. RecipeError: there are none, or one does not train."""
        method = getattr(attachment, "method", None)
        deltas = getattr(attachment, "deltas", {})
        if not deltas or not getattr(method, "is_lora", False):
            name = getattr(method, "name", "none")
            raise RecipeError(
                f"train.optimizer loft trains pairs of A and B with dW = s B A, and method {name} "
                "does not have them; take method lora, or train.optimizer=adamw"
            )
        found = [(d.A, d.B, float(d.scale)) for d in deltas.values()]
        if not all(A.requires_grad and B.requires_grad for A, B, _ in found):
            raise RecipeError(
                "train.optimizer loft updates A and B in turn, and the method's initialisation "
                "keeps one of them; take another method.init, or train.optimizer=adamw"
            )
        return found

    def held(self, shape: tuple[int, ...]) -> dict[str, Held]:
        return {"step": COUNT, "exp_avg": Held(shape), "exp_avg_sq": Held(shape)}

    def held_by(self, attachment: Attachment) -> dict[str, dict[str, Held]]:
        held = super().held_by(attachment)
        names = {id(p): name for name, p in attachment.trained().items()}
        for A, B, _ in self._pairs(attachment):
            r, columns = A.shape
            rows = B.shape[0]
            for own, other, count in ((A, B, columns), (B, A, rows)):
                held[names[id(own)]] = {
                    "step": COUNT,
                    "turns": COUNT,
                    "exp_avg": Held(tuple(own.shape)),
                    "row_products": Held((count, r, r)),
                    "other": Held(tuple(other.shape)),
                }
        return held


PLUGIN = LoFT
