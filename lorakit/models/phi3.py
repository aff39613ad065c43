"""Phi-3 (Abdin et al. 2024, arXiv 2404.14219).

The Llama shape, with q, k and v in one weight, and gate and up in another.
"""

from lorakit.models._base import Family, Fused

PLUGIN = Family(
    model_types=("phi3",),
    fused=Fused("self_attn.qkv_proj"),
    roles={
        "attention_out": "self_attn.o_proj",
        "mlp_in": "mlp.gate_up_proj",
        "mlp_out": "mlp.down_proj",
    },
)
