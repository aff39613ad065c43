"""Weight decay by name and shape, and the learning rate against transformers' schedules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lorakit.errors import RecipeError
from lorakit.methods.reparam.lora import LoRA
from lorakit.recipe.train import Train
from lorakit.training.optim import build_optimizer, learning_rate, set_rates
from tests.attaching import attach


def _decayed(optimizer) -> dict[int, float]:
    return {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }


def test_decay_spares_biases_and_norms_and_nothing_else(tiny):
    model = tiny("roberta").model
    trained = dict(model.named_parameters())
    decay = _decayed(build_optimizer(trained, Train(weight_decay=0.1), None))
    spared = {name for name, p in trained.items() if decay[id(p)] == 0.0}
    assert len(decay) == len(trained)
    assert spared == {name for name in trained if name.endswith("bias") or "LayerNorm" in name}
    assert {decay[id(p)] for name, p in trained.items() if name not in spared} == {0.1}


def test_a_and_b_and_the_head_are_decayed(tiny):
    model = tiny("roberta")
    trained = attach(LoRA(), model).trained()
    decay = _decayed(build_optimizer(trained, Train(weight_decay=0.1), None))
    assert {name for name, p in trained.items() if decay[id(p)] == 0.0} == {
        "classifier.dense.bias",
        "classifier.out_proj.bias",
    }


def test_settings_reach_the_optimizer():
    settings = Train(learning_rate=3e-4, adam_betas=(0.8, 0.9), adam_eps=1e-6)
    optimizer = build_optimizer({"w": nn.Parameter(torch.ones(2, 2))}, settings, None)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {optimizer.param_groups[0][k] for k in ("lr", "eps")} == {3e-4, 1e-6}
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    assert len(optimizer.param_groups) == 1  # an empty group is left out


def test_a_methods_own_groups_replace_the_rule():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    groups = [
        {"params": [first], "weight_decay": 0.3},
        {"params": [second], "weight_decay": 0.4},
        {"params": []},
    ]
    optimizer = build_optimizer({"a": first, "b": second}, Train(weight_decay=0.1), groups)
    assert _decayed(optimizer) == {id(first): 0.3, id(second): 0.4}


A, B, OTHER = (nn.Parameter(torch.ones(2)) for _ in range(3))
WRONG: dict[str, list] = {
    "unknown key": [{"params": [A, B], "learning_rate": 1e-3}],
    "near miss": [{"params": [A, B], "weigth_decay": 0.1}],
    "no params": [{"lr": 1e-3}],
    "no mapping": [[A, B]],
    "in none": [{"params": [A]}],
    "no group": [],
    "in two": [{"params": [A, B]}, {"params": [B]}],
    "twice in one": [{"params": [A, B, B]}],
    "not trained": [{"params": [A, B, OTHER]}],
    "two rates": [{"params": [A, B], "lr": 1e-3, "lr_ratio": 2}],
    "rate 0": [{"params": [A, B], "lr_ratio": 0}],
    "rate below 0": [{"params": [A, B], "lr": -1e-3}],
    "rate nan": [{"params": [A, B], "lr": float("nan")}],
    "rate text": [{"params": [A, B], "lr": "1e-3"}],
    "decay below 0": [{"params": [A, B], "weight_decay": -1}],
    "betas": [{"params": [A, B], "betas": (2.0, 0.9)}],
    "eps": [{"params": [A, B], "eps": -1.0}],
}


@pytest.mark.parametrize("kind", WRONG)
def test_own_groups_that_are_wrong_are_refused(kind):
    with pytest.raises(RecipeError, match="parameter_groups") as error:
        build_optimizer({"the_a": A, "the_b": B}, Train(), WRONG[kind])
    offending = {
        "unknown key": "learning_rate",
        "near miss": "weight_decay",
        "in none": "the_b",
        "in two": "the_b",
    }
    assert offending.get(kind, "") in str(error.value)


def test_each_group_keeps_its_ratio_to_the_rate():
    a, b, c = (nn.Parameter(torch.ones(2)) for _ in range(3))
    groups = [
        {"params": (p for p in [a]), "lr_ratio": 16},
        {"params": [b], "lr": 5e-5},
        {"params": [c]},
    ]
    optimizer = build_optimizer(
        {"a": a, "b": b, "c": c}, Train(learning_rate=1e-3, weight_decay=0.2), groups
    )
    set_rates(optimizer, 1e-4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([16e-4, 5e-6, 1e-4])
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.2}


def test_a_step_is_adamws():
    """By hand: after one step w - lr * sign(g) - lr * decay * w, for an eps much smaller than g."""
    w = nn.Parameter(torch.tensor([[2.0, -3.0]]))
    optimizer = build_optimizer({"w": w}, Train(learning_rate=0.1, weight_decay=0.5), None)
    (w * torch.tensor([[1.0, 4.0]])).sum().backward()
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.tensor([[2.0 - 0.1 - 0.1, -3.0 - 0.1 + 0.15]]))


@pytest.mark.parametrize("warmup", [0.0, 0.06, 0.1, 0.33, 1.0, 7, 40])
@pytest.mark.parametrize("total", [1, 10, 37])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_learning_rate_is_transformers(schedule, total, warmup):
    """`warmup` below one is a share, rounded up, as transformers' `warmup_ratio`."""
    import math

    import transformers

    steps = int(warmup) if warmup >= 1 else math.ceil(total * warmup)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    if schedule == "constant":
        reference = transformers.get_constant_schedule_with_warmup(optimizer, steps)
    else:
        make = getattr(transformers, f"get_{schedule}_schedule_with_warmup")
        reference = make(optimizer, steps, total)
    settings = Train(learning_rate=0.5, warmup=warmup, schedule=schedule)
    for step in range(total):
        assert learning_rate(settings, step, total) == pytest.approx(
            reference.get_last_lr()[0], abs=1e-12
        )
        optimizer.step()
        reference.step()


def test_linear_and_cosine_end_at_zero():
    for schedule in ("linear", "cosine"):
        assert learning_rate(
            Train(schedule=schedule, learning_rate=1.0), 100, 100
        ) == pytest.approx(0, abs=1e-12)
