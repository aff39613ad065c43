"""Llama (Touvron et al. 2023, arXiv 2302.13971), and the models that have its modules: Mistral,
Qwen 2 and 3, Gemma 1 to 3, SmolLM3, OLMo, Granite, StableLM, Cohere, EXAONE and others.

Apertus, Arcee and Nemotron have no gate in the MLP.
"""

from lorakit.models._base import Family

PLUGIN = Family(
    model_types=(
        *("llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3"),
        *("gemma", "gemma2", "gemma3_text", "smollm3", "olmo", "olmo2", "olmo3"),
        *("granite", "stablelm", "cohere", "cohere2", "helium", "exaone4", "ernie4_5"),
        *("seed_oss", "hunyuan_v1_dense", "eurobert", "apertus", "arcee", "nemotron"),
    ),
    roles={
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_out": "self_attn.o_proj",
        "mlp_in": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp_out": "mlp.down_proj",
    },
)
