"""Phi-1 and Phi-2 (Gunasekar et al. 2023, arXiv 2306.11644)."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("phi",),
    roles={
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_out": "self_attn.dense",
        "mlp_in": "mlp.fc1",
        "mlp_out": "mlp.fc2",
    },
)
