r"""aTLAS: a coefficient for each weight and each of several adapters, whose changes are frozen.

    dW = sum_t c_t dW_t        dW_t = B_t A_t of adapter t        c (T,) = 0 at the start

c_t = 1 is adapter t itself, and equal coefficients everywhere are task arithmetic. Zhang et al.
2024, arXiv 2407.02880: anisotropic scaling of task vectors, with a coefficient for each parameter
block. Its task vectors are those of fully fine-tuned models; here they are adapters, so a block is
a weight that they adapt. All A_t (T, k, in) and B_t (T, out, k) are saved, with zeros up to the
largest rank k, so the adapter is read without the others.

When to use: a task for which you have adapters of related tasks and few examples: T numbers a
weight train, too few to overfit, and T of them say which adapter helped where. It learns nothing
that the adapters do not know, it costs as much as a LoRA of their ranks together, and the
coefficients want a large learning rate (0.01 to 0.1).
"""

from __future__ import annotations

from typing import Literal

from lorakit.methods._adapters import OnStack
from lorakit.methods.reparam import Frozen, LowRank, MethodDelta, Shape, Site, Tensor


class ATLAS(OnStack, LowRank):
    """Learned coefficients of the changes of adapters."""

    name: Literal["atlas"] = "atlas"
    tiny = {"random": 3}

    def tensors(self, site: Site) -> dict[str, Shape]:
        frozen = {name: Frozen(shape) for name, shape in self.stack_shapes(site).items()}
        return {"c": (self.count(),), **frozen}

    def reads(self, d: MethodDelta) -> Tensor:
        return d.A.flatten(0, 1)

    def writes(self, d: MethodDelta) -> Tensor:
        return (d.c[:, None, None] * d.B).permute(1, 0, 2).flatten(1)


PLUGIN = ATLAS
