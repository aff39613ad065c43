r"""VeRA: two trained vectors per layer scale one random, frozen pair A, B that all layers share.

    dW = diag(b) B diag(d) A        b = 0 and d = `d` at the start

A (r, in) and B (out, r) have the largest in and out of all sites; a layer takes the first columns
of A and the first rows of B. They come from `seed` as PEFT draws them, so an adapter holds b (out)
and d (r) alone. Kopiczko et al. 2023, arXiv 2310.11454.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from lorakit.methods.reparam import LowRank, PeftForm, Shape

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lorakit.nn.select import Site


def _to_peft(method: VeRA) -> dict[str, Any]:
    return {
        "r": method.r,
        "projection_prng_key": method.seed,
        "save_projection": True,
        "d_initial": method.d,
        "vera_dropout": method.dropout,
    }


def _from_peft(config: Any) -> dict[str, Any]:
    return {
        "r": config["r"],
        "seed": config.get("projection_prng_key", 0),
        "d": config.get("d_initial", 0.1),
        "dropout": float(config.get("vera_dropout") or 0.0),
    }


class VeRA(LowRank):
    """Vector-based random matrix adaptation."""

    name: Literal["vera"] = "vera"
    saves_shared: ClassVar[bool] = False
    peft: ClassVar[PeftForm | None] = PeftForm(
        type="VERA",
        tensors={"b": "vera_lambda_b", "d": "vera_lambda_d"},
        to_peft=_to_peft,
        from_peft=_from_peft,
        unused=("init_weights", "save_projection"),
        shared={"A": "base_model.vera_A", "B": "base_model.vera_B"},
        conv1d=True,
    )
    r: int = Field(default=256, ge=1)
    """Number of rows of A."""
    d: float = Field(default=0.1, gt=0)
    """The vector d at the start."""
    seed: int = Field(default=0, ge=0)
    """Of A and B."""

    def shared(self, sites: Sequence[Site]) -> nn.Module:
        from lorakit.methods.reparam._random_pair import random_pair

        return random_pair(sites, rows_of_a=self.r, columns_of_b=self.r, seed=self.seed)

    def tensors(self, site: Site) -> dict[str, Shape]:
        return {"b": (site.shape[0],), "d": (self.r,)}

    def begin(self, d: Any) -> None:
        d.d.fill_(self.d)

    def reads(self, d: Any) -> Tensor:
        a = d.shared.A
        in_ = d.site.shape[1]
        # the same tensor for all sites of this width, so that its product is computed once
        return a if a.shape[1] == in_ else a[:, :in_]

    def writes(self, d: Any) -> Tensor:
        b = d.shared.B[: d.site.shape[0]]
        return d.b[:, None] * (b * d.d)


PLUGIN = VeRA
