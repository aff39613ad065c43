"""LoRA+PL: LoRA and PrefixLayer at once (Hu et al. 2021, appendix E and Table 15).

Its parameters are the sum of theirs: 2 L_LoRA d r + L d (l_p + l_i).
"""

from __future__ import annotations

from typing import Literal

from lorakit.methods.prompt.prefix_layer import PrefixLayer
from lorakit.methods.sum._sum import WithLoRA


class LoRAPrefixLayer(WithLoRA):
    """Low-rank adaptation of weights, and what tokens that every row is given are to each block."""

    name: Literal["lora_prefix_layer"] = "lora_prefix_layer"
    prompt: PrefixLayer = PrefixLayer(prefix=8, infix=4)
    """As method `prefix_layer`; the paper has 8 and 4 here."""


PLUGIN = LoRAPrefixLayer
