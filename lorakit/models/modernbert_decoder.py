"""The decoder of ModernBERT's shape, as in Ettin (Weller et al. 2025, arXiv 2507.11412)."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("modernbert-decoder",),
    roles={
        "query": "attn.q_proj",
        "key": "attn.k_proj",
        "value": "attn.v_proj",
        "attention_out": "attn.Wo",
        "mlp_in": "mlp.Wi",
        "mlp_out": "mlp.Wo",
    },
)
