"""DeBERTa v1 (He et al. 2020, arXiv 2006.03654): q, k, v in one weight, per head."""

from lorakit.models._base import Family, Fused

PLUGIN = Family(
    model_types=("deberta",),
    fused=Fused("attention.self.in_proj", groups="heads"),
    roles={
        "attention_out": "attention.output.dense",
        "mlp_in": "intermediate.dense",
        "mlp_out": r"re:.*\.layer\.\d+\.output\.dense",
    },
    block_norm=r"re:.*\.layer\.\d+\.output\.LayerNorm",
    settings=("cls_dropout",),
)
