"""The logits of the last positions: the same numbers, and an output layer that is given its input in one piece."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from lorakit.nn.logits import contiguous_head, last_logits

IDS = torch.randint(3, 30, (3, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom"])
def test_a_slice_is_made_whole(tiny, family):
    model = tiny(family, head="CausalLM").model
    wanted = model(input_ids=IDS).logits[:, -4:]
    seen = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda _m, inputs, _o: seen.append(inputs[0])
    )
    found = last_logits(model, {"input_ids": IDS}, 4)
    handle.remove()
    torch.testing.assert_close(found, wanted)
    assert seen[0].shape[1] == 4
    assert seen[0].is_contiguous()
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_a_model_without_an_output_layer_is_left_alone():
    config = BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    with contiguous_head(BertForSequenceClassification(config)):
        pass
