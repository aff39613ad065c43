"""StarCoder2 (Lozhkov et al. 2024, arXiv 2402.19173)."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("starcoder2",),
    roles={
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_out": "self_attn.o_proj",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    },
)
