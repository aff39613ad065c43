"""DeBERTa v2 and v3 (He et al. 2020, arXiv 2006.03654; 2111.09543)."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("deberta-v2",),
    roles={
        "query": "attention.self.query_proj",
        "key": "attention.self.key_proj",
        "value": "attention.self.value_proj",
        "attention_out": "attention.output.dense",
        "mlp_in": "intermediate.dense",
        "mlp_out": r"re:.*\.layer\.\d+\.output\.dense",
    },
    block_norm=r"re:.*\.layer\.\d+\.output\.LayerNorm",
    settings=("cls_dropout",),
)
