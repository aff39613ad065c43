"""LoRA+PE: LoRA and PrefixEmbedding at once (Hu et al. 2021, appendix E and Table 15).

Its parameters are the sum of theirs: 2 L_LoRA d r + d (l_p + l_i).
"""

from __future__ import annotations

from typing import Literal

from lorakit.methods.prompt.prefix_embedding import PrefixEmbedding
from lorakit.methods.sum._sum import WithLoRA


class LoRAPrefixEmbedding(WithLoRA):
    """Low-rank adaptation of weights, and tokens that every row is given."""

    name: Literal["lora_prefix_embedding"] = "lora_prefix_embedding"
    prompt: PrefixEmbedding = PrefixEmbedding(prefix=8, infix=4)
    """As method `prefix_embedding`; the paper has 8 and 4 here."""


PLUGIN = LoRAPrefixEmbedding
