"""GELU's tanh form in one operation: transformers' own numbers, and less that is kept."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from lorakit.bench._rounds import saved_bytes
from lorakit.fast.activation import WRITTEN_OUT, use_fast_activations

NAMES = ["gelu_new", "gelu_fast", "gelu_accurate"]


def test_every_class_is_known_to_transformers():
    assert {type(ACT2FN[name]).__name__ for name in NAMES} == set(WRITTEN_OUT)


@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient(name):
    plain = nn.Sequential(ACT2FN[name])
    fast = copy.deepcopy(plain)
    use_fast_activations(fast)
    assert "forward" in fast[0].__dict__
    assert type(fast[0]) is type(plain[0])
    found = []
    for module in (plain, fast):
        x = torch.linspace(-9, 9, 4001, dtype=torch.float64).requires_grad_()
        y = module(x)
        found.append((y, torch.autograd.grad(y.sum(), x)[0]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["gelu", "gelu_pytorch_tanh", "quick_gelu", "silu", "relu"])
def test_what_is_another_function_or_one_operation_already_stays(name):
    model = nn.Sequential(ACT2FN[name])
    use_fast_activations(model)
    assert "forward" not in model[0].__dict__


def test_gpt2_keeps_less(tiny):
    plain, fast = tiny("gpt2", "CausalLM"), tiny("gpt2", "CausalLM")
    use_fast_activations(fast.model)
    torch.testing.assert_close(fast.loss(), plain.loss())
    kept = [saved_bytes(m.loss, m.model) for m in (plain, fast)]
    assert kept[1] < 0.8 * kept[0]
