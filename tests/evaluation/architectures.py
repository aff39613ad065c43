"""Every causal architecture of transformers, tiny and at random, as far as one recipe of sizes
builds it."""

from __future__ import annotations

from typing import Any

import torch

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "is_decoder": True,
}
MAMBA2 = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 8,
    "num_key_value_heads": 2,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
DECODER = {
    "d_model": 32,
    "decoder_layers": 2,
    "encoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
}
SEVERAL = {"num_key_value_heads": 2, "head_dim": 8}
OWN: dict[str, dict[str, Any]] = {
    "bamba": {**MAMBA2, "attn_layer_indices": [1], "num_key_value_heads": 2},
    "bart": DECODER,
    "codegen": {"rotary_dim": 4},
    "ctrl": {"dff": 48, "n_positions": 64},
    "falcon_h1": {**MAMBA2, "mamba_d_ssm": 64, "num_key_value_heads": 2},
    "falcon_mamba": {"state_size": 4},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {
        **MAMBA2,
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "shared_intermediate_size": 16,
        "num_key_value_heads": 2,
    },
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "num_experts": 2,
        "num_key_value_heads": 2,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "num_key_value_heads": 2},
    "mamba": {"state_size": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "marian": {**DECODER, "decoder_vocab_size": 64},
    "mbart": DECODER,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi3": SEVERAL,
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR,
    "recurrent_gemma": {
        "num_hidden_layers": 3,
        "lru_width": 32,
        "attention_window_size": 64,
        "num_key_value_heads": 2,
    },
    "rwkv": {"attention_hidden_size": 32, "context_length": 64},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48},
    "xlm": {"causal": True, "emb_dim": 32, "n_layers": 2, "n_heads": 4},
    "xlnet": {
        "d_model": 32,
        "n_layer": 2,
        "n_head": 4,
        "d_inner": 48,
        "max_position_embeddings": None,
    },
    "xlstm": {"num_blocks": 2, "num_heads": 4, "head_dim": 8, "chunk_size": 8},
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "hybrid", "mamba"],
        "n_mamba_heads": 2,
        "mamba_d_state": 4,
        "num_key_value_heads": 4,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "num_hidden_layers": 3,
        "layer_types": ["mamba", "hybrid", "mamba"],
        "hybrid_layer_ids": [1],
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "mamba_d_state": 8,
        "mamba_ngroups": 1,
        "chunk_size": 8,
        "num_key_value_heads": 4,
        "use_mem_rope": True,
        "num_mem_blocks": 1,
    },
    **dict.fromkeys(
        ("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma2", "gemma3_text"), SEVERAL
    ),
}
MOST = 8_000_000
"""Numbers of a model that is still tried: what the sizes do not reach may be large."""


def build(model_type: str, **changes: Any) -> Any:
    """In eval mode, in float32, with matrices that make every token matter. Raises whatever its
    class raises."""
    from transformers import AutoConfig, AutoModelForCausalLM

    values = {**SIZES, **OWN.get(model_type, {}), **changes}
    config = AutoConfig.for_model(model_type, **{k: v for k, v in values.items() if v is not None})
    with torch.device("meta"):
        numbers = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if numbers > MOST:
        raise ValueError(f"{model_type} has {numbers} numbers at these sizes")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model
