r"""PVeRA: VeRA whose inner activation is a normal distribution, from which training draws.

    (mu, log v) = diag(d) A x        y = W0 x + diag(b) B (mu + eps sqrt(v))        eps ~ N(0, I)

A (2 r, in) and B (out, r) are random, frozen and shared by all layers, as in VeRA; b (out) and d
(2 r) train. An evaluation takes the mean, eps = 0, which is VeRA's dW = diag(b) B diag(d_mu) A_mu
and can be merged. PVeRA, 2025, as PEFT 0.21 has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from lorakit.methods.reparam import LowRank, PeftForm, Shape

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lorakit.nn.select import Site


def _to_peft(method: PVeRA) -> dict[str, Any]:
    return {
        "r": method.r,
        "projection_prng_key": method.seed,
        "save_projection": True,
        "d_initial": method.d,
        "pvera_dropout": method.dropout,
    }


def _from_peft(config: Any) -> dict[str, Any]:
    return {
        "r": config["r"],
        "seed": config.get("projection_prng_key", 0),
        "d": config.get("d_initial", 0.1),
        "dropout": float(config.get("pvera_dropout") or 0.0),
    }


class PVeRA(LowRank):
    """Probabilistic VeRA."""

    name: Literal["pvera"] = "pvera"
    saves_shared: ClassVar[bool] = False
    peft: ClassVar[PeftForm | None] = PeftForm(
        type="PVERA",
        tensors={"b": "pvera_lambda_b", "d": "pvera_lambda_d"},
        to_peft=_to_peft,
        from_peft=_from_peft,
        # sample_at_inference is refused: an evaluation would depend on a draw
        unused=("init_weights", "save_projection", "generator_seed"),
        shared={"A": "base_model.pvera_A", "B": "base_model.pvera_B"},
        conv1d=True,
    )
    r: int = Field(default=256, ge=1)
    """Number of columns of B."""
    d: float = Field(default=0.1, gt=0)
    """The vector d at the start."""
    seed: int = Field(default=0, ge=0)
    """Of A and B."""

    def shared(self, sites: Sequence[Site]) -> nn.Module:
        from lorakit.methods.reparam._random_pair import random_pair

        return random_pair(sites, rows_of_a=2 * self.r, columns_of_b=self.r, seed=self.seed)

    def tensors(self, site: Site) -> dict[str, Shape]:
        return {"b": (site.shape[0],), "d": (2 * self.r,)}

    def begin(self, d: Any) -> None:
        d.d.fill_(self.d)

    def reads(self, d: Any) -> Tensor:
        """Of the mean."""
        return d.shared.A[: self.r, : d.site.shape[1]] * d.d[: self.r, None]

    def writes(self, d: Any) -> Tensor:
        return d.b[:, None] * d.shared.B[: d.site.shape[0]]

    def add_to(self, d: Any, y: Tensor, x: Tensor) -> Tensor:
        """In training with a draw of eps, which dropout's generator gives."""
        if not d.training:
            return super().add_to(d, y, x)
        import torch
        import torch.nn.functional as F

        from lorakit.methods.reparam._delta import exactly
        from lorakit.nn.lowrank import add_product

        with exactly(y):
            a = d.shared.A[:, : d.site.shape[1]]
            h = F.linear(F.dropout(x, d.dropout).to(a.dtype), a) * d.d
            mean, log_variance = h.flatten(0, -2).chunk(2, dim=-1)
            drawn = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
            b = self.writes(d)
        return add_product(y, drawn.to(y.dtype), b, 1.0, d.rows)


PLUGIN = PVeRA
