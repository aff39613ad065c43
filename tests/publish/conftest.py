"""A tiny Llama that writes text: a byte-level tokenizer, a chat template, and adapters on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import draw

CHATML = """{% for m in messages %}{% if loop.first and m['role'] != 'system' %}\
<|im_start|>system
Be short.<|im_end|>
{% endif %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LINES = ["the cat sat on the mat", "a dog barked 12 times", "who are you? I am a cat."]


def make_base(folder: Path, pre: Any = None, chat: bool = True, **changes: Any) -> Path:
    """A checkpoint in `folder`. pre: its pre-tokenizer; None: that of GPT-2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(LINES, trainer)
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **special)
    if chat:
        tokenizer.chat_template = CHATML
    sizes = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, **changes}))
    draw(model, 3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("bases") / "tiny")


def make_adapter(folder: Path, base: Path, **method: Any) -> Path:
    """An adapter of LoRA on the base, with a B that is not zero."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import lorakit

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    fields = {"targets": ["query", "key", "value", "mlp_out"], "r": 4, "alpha": 8, **method}
    attachment = lorakit.attach(model, "lora", **fields)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in attachment.trained().values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    lorakit.save_adapter(attachment, folder, AutoTokenizer.from_pretrained(base))
    return folder


@pytest.fixture(scope="session")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapters") / "own", base)


@pytest.fixture(scope="session")
def mixed_ranks(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose modules have two ranks and two scales."""
    targets = ["query", {"match": "value", "r": 2, "alpha": 6}]
    return make_adapter(tmp_path_factory.mktemp("adapters") / "mixed", base, targets=targets)
