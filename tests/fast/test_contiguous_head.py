"""The output layer gets its input in one piece, and gives the same logits."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from lorakit.fast.contiguous_head import use_contiguous_head
from lorakit.nn.logits import last_logits

IDS = torch.randint(3, 30, (3, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom"])
def test_a_slice_is_put_in_one_piece(tiny, family):
    model = tiny(family, head="CausalLM").model
    wanted = model(input_ids=IDS).logits[:, -4:]
    use_contiguous_head(model)
    use_contiguous_head(model)
    output = model.get_output_embeddings()
    assert len(output._forward_pre_hooks) == 1
    seen = []
    output.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    torch.testing.assert_close(last_logits(model, {"input_ids": IDS}, 4), wanted)
    assert seen[0].shape[1] == 4
    assert seen[0].is_contiguous()


def test_a_model_without_an_output_layer_is_left_alone():
    sizes = {"vocab_size": 30, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForSequenceClassification(BertConfig(**sizes, num_hidden_layers=1))
    use_contiguous_head(model)
    assert not any(module._forward_pre_hooks for module in model.modules())
