"""LoRA+PL: LoRA and PrefixLayer together (Hu et al. 2021, appendix E and Table 15).

    h = W0 x + (alpha / r) B A x    in rows with the tokens of PrefixLayer

It trains the parameters of both: 2 L_LoRA d r + L d (l_p + l_i), with L_LoRA weights adapted.
"""

from __future__ import annotations

from typing import Literal

from lorakit.methods.prompt.prefix_layer import PrefixLayer
from lorakit.methods.sum._sum import WithLoRA


class LoRAPrefixLayer(WithLoRA):
    """Low-rank adaptation of weights, and trained hidden states of added tokens."""

    name: Literal["lora_prefix_layer"] = "lora_prefix_layer"
    prompt: PrefixLayer = PrefixLayer(prefix=8, infix=4)
    """As in method `prefix_layer`; the paper takes 8 and 4 tokens."""


PLUGIN = LoRAPrefixLayer
