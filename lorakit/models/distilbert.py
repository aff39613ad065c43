"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108)."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("distilbert",),
    roles={
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_out": "attention.out_lin",
        "mlp_in": "ffn.lin1",
        "mlp_out": "ffn.lin2",
    },
    block_norm="output_layer_norm",
)
