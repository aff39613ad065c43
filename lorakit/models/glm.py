"""GLM-4 (GLM team 2024, arXiv 2406.12793): the Llama shape, with gate and up in one weight."""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=("glm", "glm4"),
    roles={
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_out": "self_attn.o_proj",
        "mlp_in": "mlp.gate_up_proj",
        "mlp_out": "mlp.down_proj",
    },
)
