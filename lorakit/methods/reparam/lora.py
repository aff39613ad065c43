r"""LoRA: a frozen weight W0 and a trained change dW of low rank (Hu et al. 2021, arXiv 2106.09685).

    h = W0 x + dW dropout(x)        dW = (alpha / r) B A

W0 (out, in) is the pretrained weight. A (r, in) starts at random and B (out, r) at zero, so dW = 0
at the start; r is the rank and alpha the numerator of the scale (section 4.1). It trains
r (in + out) numbers per site. In a fused weight each role has its own A and B, as in the reference
code (`MergedLinear`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from lorakit.methods.reparam import Ranked


class LoRA(Ranked):
    """Low-rank adaptation of linear layers."""

    name: Literal["lora"] = "lora"
    on_embeddings: ClassVar[bool] = True


PLUGIN = LoRA
