r"""SVF: the singular values of the weight train.

    W0 = U S V^T        scale:  W' = U diag(s z) V^T,         z starts at one
                        add:    W' = U diag(s + delta) V^T,   delta starts at zero

There are k = min(out, in) numbers for each weight, and dW can have W0's rank. `scale` is the method
of Transformer^2, Sun et al. 2025, arXiv 2501.06252; `add` is the form of CLIP-SVD, Koleilat et al.
2025, arXiv 2509.03740. The code of Transformer^2 also multiplies W' with sum(s) / sum(s z), so that
the sum of the singular values stays: this is `keep_sum`. In that code z is a sigmoid of what
trains, by reinforcement; here z trains like all other parameters. Mixing several z is not included.
U and V are derived from W0.

When to use: where an adapter must have as few numbers as possible, and the task needs other
strengths of what the base computes already, not new directions. Each step forms U M V^T, a product
of two matrices of the size of W0; training holds U and V, up to twice the size of each adapted
weight; and attaching takes an SVD of each.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from lorakit.methods.reparam import MethodDelta, Shape, Site, Tensor
from lorakit.methods.reparam._singular import InSingularBasis


class SVF(InSingularBasis):
    """Singular value fine-tuning."""

    name: Literal["svf"] = "svf"
    form: Literal["scale", "add"] = "scale"
    """scale: each singular value is multiplied by a number; add: a number is added to it."""
    keep_sum: bool = False
    """Whether W' is scaled so that the sum of the singular values stays; for the form scale."""

    @model_validator(mode="after")
    def _sum_of_scaled(self) -> SVF:
        if self.keep_sum and self.form == "add":
            raise ValueError("keep_sum is for form: scale, and form is add; leave one out")
        return self

    def coefficients(self, site: Site) -> dict[str, Shape]:
        return {"z" if self.form == "scale" else "delta": (min(site.shape),)}

    def begin(self, d: MethodDelta) -> None:
        super().begin(d)
        if self.form == "scale":
            d.z.fill_(1)

    def left(self, d: MethodDelta, u: Tensor, s: Tensor) -> Tensor:
        if self.form == "add":
            return u * d.delta
        if not self.keep_sum:
            return u * (s * (d.z - 1))
        return u * (s * (d.z * (s.sum() / (s * d.z).sum()) - 1))


PLUGIN = SVF
