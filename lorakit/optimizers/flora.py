"""flora: Adafactor with a momentum that is held as a random projection of itself.

    u = g / sqrt(V) (Adafactor's),   v = (1 - b) u + b P^T M,   M <- b M + (1 - b) P u
    w <- w - max(1e-3, rms(w)) rate v / max(1, rms(v) / clip)

P (r, rows) is drawn from N(0, 1 / r) and a seed; a matrix that is not wider than long is projected
from the other side. Every `kappa` steps a new P' is drawn, and M becomes P' P^T M. Only M and the
seed are held, so that the momentum of a matrix (rows, in) takes r * in numbers. Hao, Cao and Mou
2024, Flora: Low-Rank Adapters Are Secretly Gradient Compressors, arXiv 2402.03293. As in the
authors' code (BorealisAI/flora-opt), the momentum is that of Adafactor's update, and it is not
compressed for matrices that are more than four times longer than wide, such as embeddings. Differs:
these and vectors have no momentum here, and a full one there; the seeds of the projections are
counted up.

When to use: with method full where neither AdamW's moments nor a full momentum fit. It is no use
on an adapter, whose matrices are small already, and is refused there.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lorakit.errors import RecipeError
from lorakit.optimizers import Attachment, Groups, Held, Optimizer, TorchOptimizer
from lorakit.optimizers._base import COUNT

LONGEST = 4
"""Length over width of the longest matrix whose momentum is compressed."""


class Flora(Optimizer):
    """Adafactor with a compressed momentum."""

    name: Literal["flora"] = "flora"
    for_method: ClassVar[str] = "full"
    r: int = Field(default=16, ge=1)
    """Rank of the projection."""
    kappa: int = Field(default=1000, ge=1)
    """Steps with one projection."""
    beta1: float = Field(default=0.9, gt=0, lt=1)
    """Of the momentum."""
    decay: float = Field(default=-0.8, ge=-1, le=0)
    """Exponent of the step in the second moment's decay."""
    clip: float = Field(default=1.0, gt=0)
    """The largest rms of an update."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the projections; parameter i begins with seed + i."""

    def build(self, groups: Groups, rate: float, attachment: Attachment | None) -> TorchOptimizer:
        from lorakit.optimizers._flora import FloraAdafactor

        shapes = [tuple(p.shape) for group in groups for p in group["params"]]
        if not any(self.compresses(shape) for shape in shapes):
            raise RecipeError(
                f"train.optimizer flora compresses the momentum of matrices of rank {self.r} or "
                f"more that are at most {LONGEST} times longer than wide, and none of these "
                "trains; take method full, a smaller r, or train.optimizer=adamw"
            )
        return FloraAdafactor(groups, rate, self)

    def compresses(self, shape: tuple[int, ...]) -> bool:
        is_matrix = len(shape) == 2 and min(shape) >= self.r
        return is_matrix and max(shape) <= LONGEST * min(shape)

    def held(self, shape: tuple[int, ...]) -> dict[str, Held]:
        held = {"step": COUNT}
        if len(shape) == 2:
            held |= {"row": Held(shape[:1]), "column": Held(shape[1:])}
        else:
            held |= {"exp_avg_sq": Held(shape)}
        if self.compresses(shape):
            rows, columns = shape
            short = (self.r, columns) if rows < columns else (rows, self.r)
            held |= {"seed": COUNT, "exp_avg": Held(short)}
        return held


PLUGIN = Flora
