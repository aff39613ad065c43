"""Layer rotation: the angle between a weight and its first value."""

from __future__ import annotations

import math

import pytest
import torch

from lorakit.nn import rotation as module
from lorakit.nn.rotation import rotation
from tests.attaching import attach
from tests.conftest import small_method

W = torch.tensor([[3.0, 0.0], [0.0, 4.0]])


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 0.5, math.pi / 2, 2.5])
def test_the_angle_of_two_vectors(angle):
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)
    now = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    # 1 - cos, without the cancellation of small angles
    assert rotation(first, now - first) == pytest.approx(2 * math.sin(angle / 2) ** 2, rel=1e-6)


def test_a_longer_weight_has_not_turned():
    assert rotation(W, 0.7 * W) == pytest.approx(0, abs=1e-12)
    assert rotation(W, -2 * W) == pytest.approx(2)
    assert rotation(torch.zeros(2), torch.ones(2)) == 0
    assert rotation(W, -W) == 0


def test_weights_of_several_chunks(monkeypatch):
    change = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    wanted = 1 - 25 / (5 * 30**0.5)
    monkeypatch.setattr(module, "CHUNK", 3)
    assert rotation(W, change) == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["lora", "full", "lora_prefix_embedding"])
def test_every_adapted_weight_turns(tiny, name):
    model = tiny("gpt2")
    attachment = attach(small_method(name), model)
    weights = {n: p.detach().clone() for n, p in model.model.named_parameters()}
    assert set(attachment.rotations().values()) == {0.0}
    model.step(attachment, steps=3)
    found = attachment.rotations()
    assert len(found) >= 4
    assert all(0 < value < 2 for value in found.values())
    if name == "full":
        path, value = next(iter(found.items()))
        now = dict(model.model.named_parameters())[path].detach()
        cos = torch.cosine_similarity(weights[path].flatten(), now.flatten(), dim=0)
        assert value == pytest.approx(float(1 - cos), abs=1e-6)


def test_a_method_between_layers_turns_no_weight(tiny):
    model = tiny("gpt2")
    assert attach(small_method("adapter_h"), model).rotations() == {}
