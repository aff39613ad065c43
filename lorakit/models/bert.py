"""BERT (Devlin et al. 2018, arXiv 1810.04805), and the models that have its blocks: RoBERTa (Liu et
al. 2019, arXiv 1907.11692) and its multilingual variants, ELECTRA, ERNIE, RemBERT, RoFormer and
data2vec."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=(
        *("bert", "roberta", "xlm-roberta", "camembert"),
        *("electra", "ernie", "rembert", "roformer", "data2vec-text"),
    ),
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
