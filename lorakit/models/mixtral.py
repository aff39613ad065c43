"""Mixtral (Jiang et al. 2024, arXiv 2401.04088), the experts of Qwen, OLMoE and gpt-oss.

The roles cover the attention. The experts of a layer are slices of one tensor, which the targets
`experts:gate_up_proj` and `experts:down_proj` adapt.
"""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss"),
    roles={
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_out": "self_attn.o_proj",
    },
)
