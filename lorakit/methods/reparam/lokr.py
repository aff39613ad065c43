r"""LoKr: dW is the Kronecker product of two small matrices.

    dW = (alpha / r) W1 (x) W2        W2 = B A where that is smaller, and else one matrix

W1 (o1, i1) starts at zero and W2 (o2, i2) at random; o1 o2 = out and i1 i2 = in. With `factor` -1
the two numbers of a size are as near to each other as they can be; else the first is `factor`, or
the nearest divisor below it. B (o2, r) and A (r, i2) replace W2 where r < max(o2, i2) / 2. No
matrix (out, in) is formed: x becomes X (i1, i2), and dW x is W1 X W2^T. Hyeon-Woo et al. 2021,
arXiv 2108.06098 and Yeh et al. 2023, arXiv 2309.14859 (LyCORIS); the sizes are those of PEFT, whose
`decompose_both` (a W1 of low rank) is not built.

When to use: for adapters of about a thousand numbers per weight that still have a high rank. It
needs fewer multiplications than LoRA, more passes over x, so that a step is somewhat slower, and a
larger learning rate.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lorakit.methods.reparam import Applied, MethodDelta, PeftForm, Shape, Site, Tensor


class LoKr(Applied):
    """Low-rank Kronecker product."""

    name: Literal["lokr"] = "lokr"
    tiny = {"r": 2}
    peft: ClassVar[PeftForm | None] = PeftForm(
        type="LOKR",
        tensors={"W1": "lokr_w1", "W2": "lokr_w2", "B": "lokr_w2_a", "A": "lokr_w2_b"},
        optional=("W2", "B", "A"),
        fields={"r": "r", "alpha": "alpha", "factor": ("decompose_factor", -1)},
        others=(
            "init_weights",
            "use_effective_conv2d",
            "rank_dropout",
            "rank_dropout_scale",
            "module_dropout",
        ),
    )
    r: int = Field(default=8, ge=1)
    """Rank of W2."""
    alpha: float = Field(default=8, gt=0, le=1e6)
    """The product is scaled by alpha / r, also where W2 is one matrix."""
    factor: int = Field(default=-1, ge=-1)
    """Rows and columns of W1; -1: near the root of the weight's."""

    def tensors(self, site: Site) -> dict[str, Shape]:
        o1, o2 = divided(site.shape[0], self.factor)
        i1, i2 = divided(site.shape[1], self.factor)
        if self.r < max(o2, i2) / 2:
            return {"W1": (o1, i1), "B": (o2, self.r), "A": (self.r, i2)}
        return {"W1": (o1, i1), "W2": (o2, i2)}

    def begin(self, d: MethodDelta) -> None:
        d.kaiming(*(p for name, p in d.named_parameters() if name != "W1"))

    def apply(self, d: MethodDelta, x: Tensor) -> Tensor:
        w2 = [d.W2] if "W2" in d._parameters else [d.A, d.B]
        h = x.unflatten(-1, (d.W1.shape[1], -1))
        for matrix in w2:
            h = h @ matrix.to(x.dtype).T
        h = (d.W1.to(x.dtype) * (self.alpha / self.r)) @ h
        return h.flatten(-2)


def divided(size: int, factor: int) -> tuple[int, int]:
    """(m, n) with m n = size and m <= n, except where `factor` itself divides: then m is that."""
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    limit = size if factor < 1 else factor
    m = max(m for m in range(1, int(size**0.5) + 1) if size % m == 0 and m <= limit)
    return m, size // m


PLUGIN = LoKr
