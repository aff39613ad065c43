"""Beside PEFT's merge_utils: the same matrices from the same dW, weights and draws."""

from __future__ import annotations

from importlib.resources import files

import pytest
import torch

import lorakit
from lorakit.combining import rules
from lorakit.combining._site import Combination, combine_at

pytestmark = pytest.mark.peers
theirs = pytest.importorskip("peft.utils.merge_utils")

WEIGHTS = (1.0, 0.5, -2.0)


def _pairs():
    draw = torch.Generator().manual_seed(0)
    return [
        (torch.randn(24, r, generator=draw).double(), torch.randn(r, 40, generator=draw).double())
        for r in (4, 2, 6)
    ]


def _ours(name, seed=5, **fields):
    rule = rules.get(name)(**fields)
    space = getattr(rule, "spaces", None) and "full"
    how = Combination(rule, WEIGHTS, space, None)
    found = combine_at(how, _pairs(), torch.Generator().manual_seed(seed))
    return found.b @ found.a


@pytest.mark.parametrize("density", [0.1, 0.3, 0.77])
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("ties", "ties"),
        ("magnitude", "magnitude_prune"),
        ("dare", "dare_linear"),
        ("dare_ties", "dare_ties"),
    ],
)
def test_a_sparse_rule_is_peft_s(name, function, density):
    dense = [b @ a for b, a in _pairs()]
    torch.manual_seed(5)
    wanted = getattr(theirs, function)(dense, torch.tensor(WEIGHTS).double(), density)
    found = _ours(name, density=density)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-6
    assert torch.equal(found.abs() > 1e-4, wanted.abs() > 1e-4)


def test_the_sum_is_peft_s_task_arithmetic():
    dense = [b @ a for b, a in _pairs()]
    wanted = theirs.task_arithmetic(dense, torch.tensor(WEIGHTS).double())
    assert float((_ours("sum") - wanted).norm() / wanted.norm()) < 1e-12


@pytest.fixture(scope="module")
def two_adapters(tmp_path_factory):
    """(model with two of PEFT's adapters, their folders): other ranks and alphas, random B."""
    import peft
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("theirs")
    base = str(files("lorakit") / "assets" / "tiny_gpt2")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    common = {"target_modules": ["c_attn"], "task_type": "CAUSAL_LM", "fan_in_fan_out": True}
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=6, **common), "one")
    model.add_adapter("other", peft.LoraConfig(r=2, lora_alpha=9, **common))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    model.save_pretrained(folder, selected_adapters=["one", "other"])
    return model.eval(), folder


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("cat", ["--how", "sum"]),
        ("svd", ["--how", "sum", "--rank", "3"]),
        ("ties_svd", ["--how", "{name: ties, density: 0.3}", "--rank", "3"]),
        ("magnitude_prune_svd", ["--how", "{name: magnitude, density: 0.3}", "--rank", "3"]),
    ],
)
def test_weights_mean_what_they_mean_in_add_weighted_adapter(
    two_adapters, lorakit_cli, tmp_path, kind, options
):
    model, folder = two_adapters
    svd = {} if kind == "cat" else {"svd_rank": 3}
    if "ties" in kind or "magnitude" in kind:
        svd["density"] = 0.3
    model.add_weighted_adapter(["one", "other"], [0.7, 0.4], kind, kind, **svd)
    model.set_adapter(kind)
    pair = [f"{folder / 'one'}:0.7", f"{folder / 'other'}:0.4"]
    done = lorakit_cli("combine", *pair, *options, "--to", tmp_path / "to", "--no-eval")
    assert done.code == 0, done.err
    ids = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(input_ids=ids).logits
        found = lorakit.load(tmp_path / "to").model.eval()(input_ids=ids).logits
        with model.disable_adapter():
            off = model(input_ids=ids).logits
    assert float((wanted - off).norm() / off.norm()) > 0.01
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5
