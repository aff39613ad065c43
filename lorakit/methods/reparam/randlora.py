r"""RandLoRA: a sum of random products of low rank with trained scales, which has full rank.

    dW = (alpha / r) B A'        A' = lambda o A o gamma        k = r ceil(min(in, out) / r)

All layers share n = ceil(min(in, out) / r) random, frozen pairs of rank r: one A (r, 1, smaller
size) is in all of them, and B (larger size, n, r) has a part for each. lambda (r, n) and gamma (n,
smaller size) train. A' (r, n, smaller size) becomes a matrix with k rows and B one with k columns;
they change places where `out` is the smaller size. Everything is drawn from `seed` as PEFT draws
it, so an adapter holds lambda and gamma alone. Albert et al. 2025, arXiv 2502.00987.

lambda starts at zero, and gamma at one over its larger size. PEFT draws A and B in bfloat16, and so
does this. An adapter is written without them, because PEFT would store a copy for each module; such
files are read. PEFT's `sparse` pairs are not built.

When to use: where a low rank is the limit and memory for gradients is too, since few numbers train.
dW is formed as a product of rank min(in, out), so a layer costs about three times the base's; C3A
is a cheaper way to full rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from lorakit.methods.reparam import MethodDelta, Module, PeftForm, ScaledByRank, Shape, Site, Tensor


class RandLoRA(ScaledByRank):
    """Full-rank adaptation on random bases."""

    name: Literal["randlora"] = "randlora"
    tiny = {"r": 8}
    saves_shared: ClassVar[bool] = False
    peft: ClassVar[PeftForm | None] = PeftForm(
        type="RANDLORA",
        tensors={"scales": "randlora_lambda", "gamma": "randlora_gamma"},
        fields={
            "r": "r",
            "alpha": "randlora_alpha",
            "dropout": ("randlora_dropout", 0.0),
            "seed": ("projection_prng_key", 0),
        },
        to_peft=lambda method: {"save_projection": False},
        others=("init_weights", "save_projection"),
        shared={"A": "base_model.randlora_A", "B": "base_model.randlora_B"},
        writes_shared=False,
        conv1d=True,
    )
    r: int = Field(default=32, ge=1)
    """Rank of each random pair."""
    alpha: float = Field(default=640, gt=0, le=1e6)
    """The sum is scaled by alpha / r; 20 r is usual."""
    seed: int = Field(default=0, ge=0)
    """Of the random pairs."""

    def shared(self, sites: Sequence[Site]) -> Module:
        from lorakit.methods.reparam._random_pair import random_bases

        return random_bases(sites, self.r, self.seed)

    def tensors(self, site: Site) -> dict[str, Shape]:
        n = math.ceil(min(site.shape) / self.r)
        return {"scales": (self.r, n), "gamma": (n, min(site.shape))}

    def begin(self, d: MethodDelta) -> None:
        d.gamma.fill_(1 / max(d.gamma.shape))

    def reads(self, d: MethodDelta) -> Tensor:
        out, in_ = d.site.shape
        return self._small(d) if in_ <= out else self._large(d).T

    def writes(self, d: MethodDelta) -> Tensor:
        out, in_ = d.site.shape
        return self._large(d) if in_ <= out else self._small(d).T

    @staticmethod
    def _small(d: MethodDelta) -> Tensor:
        """A' (k, smaller size)."""
        a = d.shared.A[:, :, : d.gamma.shape[1]]
        return (d.scales[:, :, None] * a * d.gamma).flatten(0, 1)

    @staticmethod
    def _large(d: MethodDelta) -> Tensor:
        """B (larger size, k)."""
        return d.shared.B[: max(d.site.shape), : len(d.gamma)].flatten(1)


PLUGIN = RandLoRA
