"""OPT (Zhang et al. 2022, arXiv 2205.01068), XGLM and BioGPT."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("opt", "xglm", "biogpt"),
    roles={
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_out": "self_attn.out_proj",
        "mlp_in": "fc1",
        "mlp_out": "fc2",
    },
)
