"""GPT-NeoX and Pythia (Black et al. 2022, arXiv 2204.06745): q, k, v in one weight, per head."""

from lorakit.models._base import Family, Fused

PLUGIN = Family(
    model_types=("gpt_neox",),
    fused=Fused("attention.query_key_value", groups="heads"),
    roles={
        "attention_out": "attention.dense",
        "mlp_in": "mlp.dense_h_to_4h",
        "mlp_out": "mlp.dense_4h_to_h",
    },
)
