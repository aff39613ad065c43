"""MPNet (Song et al. 2020, arXiv 2004.09297)."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("mpnet",),
    roles={
        "query": "attention.attn.q",
        "key": "attention.attn.k",
        "value": "attention.attn.v",
        "attention_out": "attention.attn.o",
        "mlp_in": "intermediate.dense",
        "mlp_out": r"re:.*\.layer\.\d+\.output\.dense",
    },
    block_norm=r"re:.*\.layer\.\d+\.output\.LayerNorm",
)
