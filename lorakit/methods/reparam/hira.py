r"""HiRA: dW is the element-wise product of W0 with a matrix of low rank, and can have W0's rank.

    dW = W0 o (B A)        A (r, in) starts at random, B (out, r) at zero

It has no alpha, as in PEFT. Huang et al. 2025, "HiRA: Parameter-Efficient Hadamard High-Rank
Adaptation for Large Language Models" (ICLR 2025).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lorakit.methods.reparam import Dense, MethodDelta, PeftForm, Shape, Site, Tensor


class HiRA(Dense):
    """Hadamard high-rank adaptation."""

    name: Literal["hira"] = "hira"
    tiny = {"r": 4}
    peft: ClassVar[PeftForm | None] = PeftForm(
        type="HIRA",
        tensors={"A": "hira_A", "B": "hira_B"},
        fields={"r": "r", "dropout": ("hira_dropout", 0.0)},
        others=("init_weights",),
        conv1d=True,
    )
    r: int = Field(default=32, ge=1)
    """Rank of B A."""

    def tensors(self, site: Site) -> dict[str, Shape]:
        return {"A": (self.r, site.shape[1]), "B": (site.shape[0], self.r)}

    def begin(self, d: MethodDelta) -> None:
        d.kaiming(d.A)

    def change(self, d: MethodDelta) -> Tensor:
        return d.weight.to(d.A.dtype) * (d.B @ d.A)


PLUGIN = HiRA
