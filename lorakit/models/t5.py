"""T5 (Raffel et al. 2019, arXiv 1910.10683).

Roles cover self-attention and cross-attention, in the encoder and the decoder.
"""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("t5", "mt5"),
    roles={
        "query": r"re:.*Attention\.q",
        "key": r"re:.*Attention\.k",
        "value": r"re:.*Attention\.v",
        "attention_out": r"re:.*Attention\.o",
        "mlp_in": ("DenseReluDense.wi", "DenseReluDense.wi_0", "DenseReluDense.wi_1"),
        "mlp_out": "DenseReluDense.wo",
    },
)
