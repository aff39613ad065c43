"""Qwen3: as Qwen2 without biases, with a norm on each head's query and key."""

from __future__ import annotations

from lorakit.publish.architectures._base import Architecture
from lorakit.publish.architectures._rotary import problem_of, settings_of

PLUGIN = Architecture(
    model_types=("qwen3",),
    settings=settings_of,
    skipped=(".rotary_emb.inv_freq",),
    problem=problem_of,
)
