"""Llama (Touvron et al. 2023, arXiv 2302.13971), and the models that have its modules: Mistral,
Qwen 2 and 3, Gemma 1 to 3, SmolLM3, OLMo, Granite, StableLM, Cohere, EXAONE and others.

Apertus, Arcee and Nemotron have no gate in the MLP. GLM-4 (GLM team 2024, arXiv 2406.12793) has
gate and up in one weight; StarCoder2 (Lozhkov et al. 2024, arXiv 2402.19173) has GPT-2's MLP.
"""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=(
        *("llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3"),
        *("gemma", "gemma2", "gemma3_text", "smollm3", "olmo", "olmo2", "olmo3"),
        *("granite", "stablelm", "cohere", "cohere2", "helium", "exaone4", "ernie4_5"),
        *("seed_oss", "hunyuan_v1_dense", "eurobert", "apertus", "arcee", "nemotron"),
        *("glm", "glm4", "starcoder2"),
    ),
    roles={
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_out": "self_attn.o_proj",
        "mlp_in": ("mlp.gate_proj", "mlp.up_proj", "mlp.gate_up_proj", "mlp.c_fc"),
        "mlp_out": ("mlp.down_proj", "mlp.c_proj"),
    },
)
