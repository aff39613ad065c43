"""GPT-2: learned positions, and weights that transformers stores as (in, out)."""

from __future__ import annotations

from typing import Any

from lorakit.publish.architectures._base import Architecture, Setting


def _settings(config: Any) -> dict[str, Setting]:
    return {
        "block_count": config.n_layer,
        "context_length": config.n_positions,
        "embedding_length": config.n_embd,
        "feed_forward_length": config.n_inner or 4 * config.n_embd,
        "attention.head_count": config.n_head,
        "attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
    }


def _problem(config: Any) -> str | None:
    if config.activation_function != "gelu_new":
        return f"its activation is {config.activation_function}, and llama.cpp computes gelu_new"
    if config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights:
        return "it scales attention in another way than llama.cpp"
    return None


PLUGIN = Architecture(
    model_types=("gpt2",),
    settings=_settings,
    transposed=("c_attn", "c_proj", "c_fc"),
    skipped=(".attn.bias", ".attn.masked_bias"),
    in_f32=("position_embd.weight",),
    config_is_read=False,  # it does not read the number of positions
    problem=_problem,
)
