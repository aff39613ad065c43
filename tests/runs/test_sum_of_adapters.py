"""`Adapters.combine`: the weighted sum of held adapters, exactly."""

from __future__ import annotations

import math

import pytest
import torch

import lorakit
from lorakit.errors import AdapterError, InputError
from tests.conftest import build, small_method
from tests.runs.test_several import inputs, logits, lora, numbers, same, save


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_it_is_the_sum_of_the_changes(family, tmp_path):
    """The weights are compared, with each adapter folded in alone."""
    model = build(family, head="CausalLM").model
    adapters = lorakit.Adapters(model)
    adapters.add("a", save(tmp_path / "a", family, lora(r=2, alpha=6), head="CausalLM"))
    adapters.add("b", save(tmp_path / "b", family, lora(r=3), seed=1, head="CausalLM"))
    before = numbers(model)
    weights = dict(model.named_parameters())
    adapters.combine("sum", {"a": 0.5, "b": -2.0})
    changes = {}
    for name in ("a", "b", "sum"):
        with adapters.fold(name):
            changes[name] = {key: p.detach() - before[key] for key, p in weights.items()}
    moved = 0
    for key, change in changes["sum"].items():
        wanted = 0.5 * changes["a"][key] - 2.0 * changes["b"][key]
        torch.testing.assert_close(change, wanted, rtol=1e-4, atol=1e-6)
        moved += bool(wanted.abs().max() > 1e-4)
    assert moved
    assert same(numbers(model), before)


def test_it_is_an_adapter_as_any_other_and_keeps_its_numbers(tmp_path):
    model = build("llama", head="CausalLM").model
    adapters = lorakit.Adapters(model)
    adapters.add("a", save(tmp_path / "a", "llama", lora(r=2), head="CausalLM"))
    adapters.switch("a")
    wanted = logits(model, inputs())
    adapters.combine("again", {"a": 1.0})
    assert adapters.active == "a"
    adapters.remove("a")
    adapters.switch("again")
    torch.testing.assert_close(logits(model, inputs()), wanted, rtol=1e-5, atol=1e-5)
    with adapters.mix(["again", None] * 3):
        mixed = logits(model, inputs())
    torch.testing.assert_close(mixed[::2], wanted[::2], rtol=1e-5, atol=1e-5)


def test_what_cannot_be_summed_is_refused(tmp_path):
    adapters = lorakit.Adapters(build("roberta").model)
    adapters.add("head", save(tmp_path / "a", "roberta", lora(r=2)))
    for weights in ({}, {"hed": 1.0}, {"head": 1.0}):
        with pytest.raises(InputError):
            adapters.combine("sum", weights)
    causal = lorakit.Adapters(build("llama", head="CausalLM").model)
    causal.add("a", save(tmp_path / "b", "llama", lora(r=2), head="CausalLM"))
    method = small_method("adapter_h")
    causal.add("other", save(tmp_path / "c", "llama", method, head="CausalLM"))
    with pytest.raises(InputError, match="nan"):
        causal.combine("sum", {"a": math.nan})
    with pytest.raises(AdapterError, match="adapter_h"):
        causal.combine("sum", {"a": 1.0, "other": 1.0})
    with pytest.raises(InputError, match="'a'"):
        causal.combine("a", {"a": 1.0})
    assert causal.names == ["a", "other"]
