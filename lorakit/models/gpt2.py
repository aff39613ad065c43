"""GPT-2 (Radford et al. 2019): `c_attn` is a Conv1D whose output is q, k and v, a third each."""

from lorakit.models._base import Family, Fused

PLUGIN = Family(
    model_types=("gpt2",),
    fused=Fused("attn.c_attn"),
    roles={"attention_out": "attn.c_proj", "mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"},
)
