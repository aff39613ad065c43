"""ModernBERT (Warner et al. 2024, arXiv 2412.13663): q, k and v in one weight, a third each."""

from lorakit.models._base import Family, Fused

PLUGIN = Family(
    model_types=("modernbert",),
    fused=Fused("attn.Wqkv"),
    roles={"attention_out": "attn.Wo", "mlp_in": "mlp.Wi", "mlp_out": "mlp.Wo"},
)
