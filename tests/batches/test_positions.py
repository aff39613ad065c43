"""How many tokens a model takes, from its table of positions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModel

from lorakit.batches import refuse_too_long
from lorakit.batches.positions import most_tokens
from lorakit.errors import ModelError
from lorakit.tasks import Data

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 20,
    "pad_token_id": 1,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "ffn_dim": 16,
    "word_embed_proj_dim": 16,
    "attention_window": 4,
}
OFFSET = ["roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "data2vec-text"]
PLAIN = ["bert", "electra", "opt", "bart", "mbart", "gpt2", "layoutlm"]


@pytest.mark.parametrize(("kind", "most"), [*((k, 18) for k in OFFSET), *((k, 20) for k in PLAIN)])
def test_as_many_as_the_model_runs_with(kind, most):
    config = AutoConfig.for_model(kind, **SMALL)
    assert most_tokens(config) == most
    model = AutoModel.from_config(config).eval()
    ids = torch.full((1, most), 5)
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_the_padding_token_decides_where_positions_begin():
    assert most_tokens(AutoConfig.for_model("roberta", **{**SMALL, "pad_token_id": 0})) == 19


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("t5", {}),
        ("mt5", {}),
        ("xlnet", {}),
        ("deberta-v2", {"relative_attention": True, "position_biased_input": False}),
    ],
)
def test_distances_alone_set_no_limit(kind, more):
    config = AutoConfig.for_model(kind, **more)
    assert most_tokens(config) is None
    refuse_too_long(Data(max_length=3000), SimpleNamespace(model_max_length=512), config)


def test_rotary_models_take_what_they_state():
    assert most_tokens(AutoConfig.for_model("llama", max_position_embeddings=64)) == 64


def test_the_images_of_a_composite_model_set_no_limit_to_its_texts():
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = AutoConfig.for_model(
        "gemma3", text_config={**SMALL, "model_type": "gemma3_text"}, vision_config=vision
    )
    assert most_tokens(config) == 20


def test_mpt_calls_its_limit_otherwise():
    assert (
        most_tokens(AutoConfig.for_model("mpt", d_model=16, n_layers=1, n_heads=2, max_seq_len=48))
        == 48
    )


def test_refused_with_the_number_that_fits():
    with pytest.raises(ModelError, match="130 is more than the 18 tokens"):
        refuse_too_long(
            Data(max_length=130),
            SimpleNamespace(model_max_length=10**30),
            AutoConfig.for_model("roberta", **SMALL),
        )
