"""LoRA+PE: LoRA and PrefixEmbedding together (Hu et al. 2021, appendix E and Table 15).

    h = W0 x + (alpha / r) B A x    in rows with the tokens of PrefixEmbedding

It trains the parameters of both: 2 L_LoRA d r + d (l_p + l_i), with L_LoRA weights adapted.
"""

from __future__ import annotations

from typing import Literal

from lorakit.methods.prompt.prefix_embedding import PrefixEmbedding
from lorakit.methods.sum._sum import WithLoRA


class LoRAPrefixEmbedding(WithLoRA):
    """Low-rank adaptation of weights, and trained embeddings of added tokens."""

    name: Literal["lora_prefix_embedding"] = "lora_prefix_embedding"
    prompt: PrefixEmbedding = PrefixEmbedding(prefix=8, infix=4)
    """As in method `prefix_embedding`; the paper takes 8 and 4 tokens."""


PLUGIN = LoRAPrefixEmbedding
