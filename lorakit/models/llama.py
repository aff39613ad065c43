"""Llama (Touvron et al. 2023, arXiv 2302.13971), Mistral, Qwen 2 and 3, Gemma 1 to 3."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
    roles={
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_out": "self_attn.o_proj",
        "mlp_in": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp_out": "mlp.down_proj",
    },
)
