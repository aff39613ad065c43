"""rsLoRA: LoRA whose product is scaled by alpha / sqrt(r), so that large ranks still learn.

    dW = (alpha / sqrt(r)) B A

With LoRA's alpha / r, the size of an update shrinks as the rank grows. Kalajdzievski 2023, arXiv
2312.03732. Every method with A and B takes it as `scaling: sqrt_rank`; here it is the default.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from lorakit.methods.reparam import Ranked


class RsLoRA(Ranked):
    """Rank-stabilised LoRA."""

    name: Literal["rslora"] = "rslora"
    on_embeddings: ClassVar[bool] = True
    scaling: Literal["rank", "sqrt_rank"] = "sqrt_rank"


PLUGIN = RsLoRA
