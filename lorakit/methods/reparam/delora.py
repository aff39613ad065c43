r"""DeLoRA: the directions of B A train apart from the strength, which one number bounds.

    dW = (lambda / r) sum_i b_i a_i^T / (||b_i|| ||a_i||) diag(w)        w_j = ||W0[:, j]||

a_i is a row of A (r, in), b_i a column of B (out, r) and lambda a trained number. w is frozen; the
paper writes one norm of W0, and its code and PEFT take the norm of each column. Bini et al. 2025,
arXiv 2503.18225.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lorakit.methods.reparam import Frozen, LowRank, MethodDelta, PeftForm, Shape, Site, Tensor

LEAST_NORM = 1e-4
"""Below it a norm counts as this number, as in PEFT: B is zero at the start."""


class DeLoRA(LowRank):
    """Decoupled low-rank adaptation."""

    name: Literal["delora"] = "delora"
    peft: ClassVar[PeftForm | None] = PeftForm(
        type="DELORA",
        tensors={
            "A": "delora_A",
            "B": "delora_B",
            "strength": "delora_lambda",
            "w": "delora_w_norm",
        },
        fields={"r": "r", "strength": ("delora_lambda", 15.0), "dropout": ("module_dropout", 0.0)},
        others=("init_weights",),
    )
    r: int = Field(default=8, ge=1)
    """Rank of dW."""
    strength: float = Field(default=15, gt=0)
    """lambda at the start."""

    def tensors(self, site: Site) -> dict[str, Shape]:
        out, in_ = site.shape
        return {"A": (self.r, in_), "B": (out, self.r), "strength": (1,), "w": Frozen((in_,))}

    def begin(self, d: MethodDelta) -> None:
        d.kaiming(d.A)
        d.strength.fill_(self.strength)
        d.w.copy_(d.weight.to(d.w.dtype).norm(dim=0))

    def reads(self, d: MethodDelta) -> Tensor:
        return d.A * d.w

    def writes(self, d: MethodDelta) -> Tensor:
        norms = d.A.norm(dim=1).clamp(min=LEAST_NORM) * d.B.norm(dim=0).clamp(min=LEAST_NORM)
        return d.B * (d.strength / self.r / norms)


PLUGIN = DeLoRA
