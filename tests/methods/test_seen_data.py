"""The look at data before the first step: what it leaves alone, and what does not change it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lorakit.adapters.save import save_adapter
from lorakit.methods import methods
from tests.attaching import attach, attach_saved

LOOKERS: dict[str, dict[str, Any]] = {
    "eva": {"name": "lora", "r": 4, "init": {"name": "eva", "batches": 2}},
    "corda": {"name": "lora", "r": 4, "init": {"name": "corda", "batches": 2}},
    "lora_ga": {"name": "lora", "r": 4, "init": {"name": "lora_ga", "batches": 2}},
    "rosa": {"name": "rosa", "r": 4, "batches": 2},
}


def made(tiny, fields, family: str = "roberta", **changes) -> tuple[Any, Any]:
    model = tiny(family, **changes)
    torch.manual_seed(0)
    return model, attach(methods.get(fields["name"]).model_validate(fields), model)


@pytest.mark.parametrize("looker", LOOKERS)
def test_it_leaves_no_gradient_for_the_first_step(tiny, looker):
    model, attachment = made(tiny, LOOKERS[looker])
    trained = set(attachment.trained())
    attachment.see([model.loss, model.loss])
    assert all(p.grad is None for p in model.model.parameters())
    assert set(attachment.trained()) == trained


SUMS = ("lora_prefix_embedding", "lora_prefix_layer")


@pytest.mark.parametrize("init", ["eva", "corda", "lora_ga"])
@pytest.mark.parametrize("name", SUMS)
def test_lora_in_a_sum_sees_what_lora_sees(tiny, about, tmp_path, name, init):
    lora = LOOKERS[init]
    model, attachment = made(tiny, {"name": name, "lora": lora}, "gpt2", head="CausalLM")
    alone, of_lora = made(tiny, lora, "gpt2", head="CausalLM")
    assert attachment.method.batches_to_see == 2
    with attachment.off():
        assert torch.equal(model.loss(), alone.loss())
    for each, part in ((model, attachment), (alone, of_lora)):
        part.see([each.loss, each.loss])
    seen = attachment.parts[0].state()
    assert all(torch.equal(seen[key], value) for key, value in of_lora.state().items())
    card = about(model, attachment, head="causal")
    save_adapter(tmp_path / "adapter", attachment, card)
    again = tiny("gpt2", "CausalLM")
    attach_saved(tmp_path / "adapter", again)
    assert torch.equal(again.logits(), model.logits())


@pytest.mark.parametrize("name", SUMS)
def test_lora_in_a_sum_has_its_two_rates(tiny, name):
    _, attachment = made(tiny, {"name": name, "lora": {"rate_of_b": 16}}, "gpt2", head="CausalLM")
    rates = {key.rpartition(".")[2]: attachment.method.rate_of(key) for key in attachment.trained()}
    assert rates.pop("B") == 16
    assert set(rates.values()) == {1}
