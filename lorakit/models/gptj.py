"""GPT-J (Wang and Komatsuzaki 2021)."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("gptj",),
    roles={
        "query": "attn.q_proj",
        "key": "attn.k_proj",
        "value": "attn.v_proj",
        "attention_out": "attn.out_proj",
        "mlp_in": "mlp.fc_in",
        "mlp_out": "mlp.fc_out",
    },
)
