"""GPT-Neo (Black et al. 2021)."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("gpt_neo",),
    roles={
        "query": "attn.attention.q_proj",
        "key": "attn.attention.k_proj",
        "value": "attn.attention.v_proj",
        "attention_out": "attn.attention.out_proj",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    },
)
