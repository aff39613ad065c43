"""Llama and Mistral: the rows of W_q and W_k are in pairs."""

from __future__ import annotations

from typing import Any

from lorakit.publish.architectures._base import Architecture, Heads
from lorakit.publish.architectures._rotary import problem_of, settings_of


def _heads(config: Any) -> Heads:
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return {"q_proj": heads, "k_proj": kv_heads}


PLUGIN = Architecture(
    model_types=("llama", "mistral"),
    settings=settings_of,
    rotated=_heads,
    skipped=(".rotary_emb.inv_freq",),
    problem=problem_of,
)
