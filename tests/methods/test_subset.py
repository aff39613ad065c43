"""Full fine-tuning and BitFit: which parameters train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lorakit.errors import ModelError
from lorakit.methods.subset.bitfit import BitFit
from lorakit.methods.subset.full import Full
from tests.attaching import attach


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_full_trains_every_parameter(tiny, family):
    model = tiny(family)
    attachment = attach(Full(), model)
    assert set(attachment.trained()) == {name for name, _ in model.model.named_parameters()}
    assert set(attachment.delta_norms()) == set(attachment.trained()) - model.newly_initialised
    assert attachment.sites == []


def test_bitfit_trains_the_biases_and_the_head(tiny):
    """By hand: 2 x (q, k, v, attention out, mlp in, mlp out, 2 norms), the norm of the embeddings,
    pooler; the head."""
    model = tiny("bert")
    trained = attach(BitFit(), model).trained()
    biases = {name: p for name, p in trained.items() if name not in model.newly_initialised}
    assert len(biases) == 2 * 8 + 1 + 1
    assert sum(p.numel() for p in biases.values()) == 2 * (5 * 32 + 48 + 2 * 32) + 32 + 32
    assert all(name.endswith("bias") for name in biases)
    assert set(trained) - set(biases) == {"classifier.weight", "classifier.bias"}


def test_bitfit_takes_biases_by_name_as_the_reference_code_does(tiny):
    """DeBERTa v1 calls two of them q_bias and v_bias."""
    model = tiny("deberta")
    trained = attach(BitFit(), model).trained()
    assert "deberta.encoder.layer.0.attention.self.q_bias" in trained


def test_bitfit_trains_the_bias_vectors_of_experts(tiny):
    """Those of all experts are the rows of one parameter."""
    found = attach(BitFit(), tiny("gpt_oss", "CausalLM")).trained()
    assert any(name.endswith("down_proj_bias") for name in found)


@pytest.mark.parametrize("family", ["llama", "phi3", "t5"])
def test_bitfit_without_biases_is_refused(tiny, family):
    model = tiny(family)
    with pytest.raises(ModelError, match="no bias"):
        attach(BitFit(), model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_bitfit_on_a_half_precision_base_is_refused(tiny, dtype):
    """A float32 bias and a bfloat16 weight do not add up in one layer."""
    model = tiny("bert", dtype=dtype)
    with pytest.raises(ModelError, match="fp32"):
        attach(BitFit(), model)


class _Headed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4, bias=False), nn.Linear(4, 2)


def test_bitfit_on_a_base_whose_only_bias_is_the_heads_is_refused():
    """Else only the head would train, and the run would be called BitFit."""
    with pytest.raises(ModelError, match="no bias"):
        BitFit().attach(_Headed(), {}, {"head.weight", "head.bias"})


@pytest.mark.parametrize("method", [Full(), BitFit()], ids=lambda m: m.name)
def test_a_change_is_measured_against_the_first_values(tiny, method):
    model = tiny("bert")
    attachment = attach(method, model)
    name = "bert.encoder.layer.0.output.dense.bias"
    with torch.no_grad():
        model.model.get_parameter(name).mul_(1.5)
    norms = attachment.delta_norms()
    assert norms.pop(name) == pytest.approx(0.5)
    assert set(norms.values()) == {0.0}
