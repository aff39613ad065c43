"""XLM-RoBERTa XL (Goyal et al. 2021, arXiv 2105.00572), Megatron-BERT and RoBERTa-PreLayerNorm.

BERT's names, with the norms before the sublayers, so that no block ends in one.
"""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("xlm-roberta-xl", "megatron-bert", "roberta-prelayernorm"),
    roles={
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attention_out": "attention.output.dense",
        "mlp_in": "intermediate.dense",
        "mlp_out": r"re:.*\.layer\.\d+\.output\.dense",
    },
)
