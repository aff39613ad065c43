"""Qwen2 and Qwen2.5: as Llama, with biases of q, k and v, and rows as transformers has them."""

from __future__ import annotations

from lorakit.publish.architectures._base import Architecture
from lorakit.publish.architectures._rotary import problem_of, settings_of

PLUGIN = Architecture(
    model_types=("qwen2",),
    settings=settings_of,
    skipped=(".rotary_emb.inv_freq",),
    problem=problem_of,
)
