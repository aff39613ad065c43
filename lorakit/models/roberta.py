"""RoBERTa and its multilingual variants (Liu et al. 2019, arXiv 1907.11692)."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("roberta", "xlm-roberta", "camembert"),
    roles={
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attention_out": "attention.output.dense",
        "mlp_in": "intermediate.dense",
        "mlp_out": r"re:.*\.layer\.\d+\.output\.dense",
    },
    block_norm=r"re:.*\.layer\.\d+\.output\.LayerNorm",
    reads_first=("attention.self", "attention.output"),
)
