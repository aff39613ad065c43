"""BLOOM (Le Scao et al. 2022, arXiv 2211.05100): q, k, v in one weight, per head."""

from lorakit.models._base import Family, Fused

PLUGIN = Family(
    model_types=("bloom",),
    fused=Fused("self_attention.query_key_value", groups="heads"),
    roles={
        "attention_out": "self_attention.dense",
        "mlp_in": "mlp.dense_h_to_4h",
        "mlp_out": "mlp.dense_4h_to_h",
    },
)
