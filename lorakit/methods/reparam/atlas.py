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

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from lorakit.errors import ModelError
from lorakit.methods.reparam import Frozen, Shape
from lorakit.methods.reparam._on_adapters import OnAdapters

if TYPE_CHECKING:
    from torch import Tensor

    from lorakit.nn.select import Site


class ATLAS(OnAdapters):
    """Learned coefficients of the changes of adapters."""

    name: Literal["atlas"] = "atlas"
    tiny = {"random": 3}
    random: int = Field(default=0, ge=0)
    """Number of random changes of rank 1 after those of the adapters, as a control: what the
    coefficients learn without knowledge."""

    def tensors(self, site: Site) -> dict[str, Shape]:
        count = len(self.adapters) + self.random
        if not count:
            raise ModelError(
                "atlas: method.adapters is empty; give the runs or adapter folders whose changes "
                "are combined"
            )
        out, in_ = site.shape
        # the rank is known when the adapters are read (`begin_from`, `fit`)
        return {"c": (count,), "A": Frozen((count, 1, in_)), "B": Frozen((count, out, 1))}

    def begin(self, d: Any) -> None:
        first = len(self.adapters)
        d.A[first:].normal_(std=d.A.shape[2] ** -0.5)
        d.B[first:].normal_(std=d.B.shape[1] ** -0.5)

    def begin_from(self, d: Any, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        before = d.A.clone(), d.B.clone()
        self._resize(d, max(1, *(len(a) for _, a in pairs)))
        d.A[:, :1] = before[0]
        d.B[:, :, :1] = before[1]
        for t, (b, a) in enumerate(pairs):
            d.A[t, : len(a)] = a
            d.B[t, :, : len(a)] = b

    def fit(self, d: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        # another number of adapters is refused when the state is loaded
        if len(shapes.get("A", ())) == d.A.ndim:
            self._resize(d, shapes["A"][1])

    def _resize(self, d: Any, k: int) -> None:
        count, _, in_ = d.A.shape
        if d.A.shape[1] != k:
            d.A.data = d.A.new_zeros(count, k, in_)
            d.B.data = d.B.new_zeros(count, d.B.shape[1], k)

    def reads(self, d: Any) -> Tensor:
        return d.A.flatten(0, 1)

    def writes(self, d: Any) -> Tensor:
        return (d.c[:, None, None] * d.B).permute(1, 0, 2).flatten(1)


PLUGIN = ATLAS
