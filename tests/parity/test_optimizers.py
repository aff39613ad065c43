"""Optimizers against their references: golden values, other libraries, or the papers' identities.

golden/optimizers.json holds numbers that three references gave: tnurbek/loft @ 148998d, with R in
the place of its transpose where the second moment is carried over; BorealisAI/flora-opt @ f329bbc,
with the seeds of its projections counted up; and dadaptation 3.2.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lorakit.methods import methods
from lorakit.optimizers import RATIO, optimizers
from lorakit.recipe.train import Train
from lorakit.training.optim import learning_rate
from tests.attaching import attach

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizers.json").read_text())


def drawn(shape: tuple[int, ...], seed: int) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 4).round() / 4


def build(
    name: str,
    parameters: Any,
    rate: float,
    attachment: Any = None,
    weight_decay: float = 0.0,
    **fields: Any,
) -> Any:
    rule = optimizers.get(name).model_validate({"name": name, **fields})
    group = {"weight_decay": weight_decay, RATIO: 1.0}
    if rule.is_adam:
        group |= {"betas": (0.9, 0.999), "eps": 1e-8}
    return rule.build([group | {"params": list(parameters)}], rate, attachment)


def descend(optimizer: Any, loss: Any, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def near(found: Tensor, wanted: Any, rel: float = 1e-5) -> None:
    wanted = torch.as_tensor(wanted)
    assert float((found.detach() - wanted).abs().max()) <= rel * float(wanted.abs().max())


def loft(scale: float) -> tuple[Any, nn.Parameter, nn.Parameter, nn.Parameter, Any]:
    wanted = GOLDEN["loft"]
    A = nn.Parameter(torch.tensor(wanted["A"]))
    B = nn.Parameter(torch.zeros(4, 2))
    head = nn.Parameter(torch.tensor(wanted["head"]))
    target = torch.tensor(wanted["target"])
    deltas = {"site": SimpleNamespace(A=A, B=B, scale=scale)}
    attachment = SimpleNamespace(deltas=deltas, method=SimpleNamespace(is_lora=True, name="lora"))
    optimizer = build("loft", [A, B, head], 0.05, attachment)

    def loss() -> Tensor:
        return ((scale * B @ A - target) ** 2).sum() + (head**2).sum()

    return optimizer, A, B, head, loss


def test_loft_is_the_reference():
    optimizer, A, B, head, loss = loft(1.0)
    for wanted in GOLDEN["loft"]["steps"]:
        descend(optimizer, loss, 1)
        # inverting B^T B, which is nearly singular in the first steps, costs digits
        near(A, wanted["A"], 1e-4)
        near(B, wanted["B"], 1e-4)
        near(head, wanted["head"])


def test_alpha_does_not_matter_to_loft():
    """dW = s B A moves the same at every scale; in the first step to rounding, and later as far as
    the ridge is small against B^T B."""
    one, A, B, _, loss = loft(1.0)
    descend(one, loss, 1)
    other, A4, B4, _, loss4 = loft(4.0)
    descend(other, loss4, 1)
    near(4 * B4 @ A4, (B @ A).detach())


def test_flora_is_the_reference():
    golden = GOLDEN["flora"]
    parameters = [nn.Parameter(torch.tensor(p)) for p in golden["start"]]
    targets = [torch.tensor(t) for t in golden["targets"]]
    optimizer = build("flora", parameters, 0.05, r=3, kappa=3)

    def loss() -> Tensor:
        return sum(((p - t) ** 4).sum() for p, t in zip(parameters, targets, strict=True))

    for wanted in golden["steps"]:
        descend(optimizer, loss, 1)
        for p, value in zip(parameters, wanted, strict=True):
            near(p, value)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "flora", "lion", "muon"])
def test_a_weight_without_a_gradient_decays(name):
    """w <- w - rate decay w; flora's rate is relative to the weight's rms."""
    p = nn.Parameter(drawn((8, 12), 1))
    start = p.detach().clone()
    fields = {"r": 4} if name == "flora" else {}
    optimizer = build(name, [p], 0.1, weight_decay=0.5, **fields)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    rate = 0.1 * start.pow(2).mean().sqrt() if name == "flora" else 0.1
    near(p, start * (1 - 0.5 * rate), 1e-6)


def test_flora_takes_no_step_larger_than_its_clip():
    """The first update of a vector is the gradient's sign, of rms 1; the rate is times its rms."""
    matrix = nn.Parameter(drawn((4, 4), 1))
    vector = nn.Parameter(torch.full((3,), 2.0))
    optimizer = build("flora", [matrix, vector], 0.1, r=2, clip=0.25)
    vector.grad = torch.tensor([5.0, -1.0, 2.0])
    optimizer.step()
    near(vector, [1.95, 2.05, 1.95])


OPTIONS = [
    ("adafactor", {"decay": -0.5, "clip": 2.0}, {"beta2_decay": -0.5, "d": 2.0}),
    ("d_adaptation", {"d0": 1e-4, "growth_rate": 1.5}, {"d": 1e-4, "growth_rate": 1.5}),
    ("muon", {"momentum": 0.8, "nesterov": False}, {"momentum": 0.8, "nesterov": False}),
    ("prodigy", {"d0": 1e-4, "d_coef": 2.0}, {"d": 1e-4, "d_coef": 2.0}),
    (
        "prodigy",
        {"bias_correction": True, "safeguard_warmup": True},
        {"bias_correction": True, "safeguard_warmup": True},
    ),
    ("schedule_free", {"r": 0.5, "weight_lr_power": 1.0}, {"r": 0.5, "weight_lr_power": 1.0}),
]


@pytest.mark.parametrize(("name", "fields", "theirs"), OPTIONS)
def test_every_field_reaches_the_optimizer(name, fields, theirs):
    (group,) = build(name, [nn.Parameter(torch.zeros(4, 4))], 0.1, **fields).param_groups
    assert {key: group[key] for key in theirs} == theirs


def test_pairs_of_loft_decay_in_turn_and_what_else_trains_in_each_step():
    optimizer, A, B, head, _ = loft(1.0)
    optimizer.param_groups[0]["weight_decay"] = 2.0
    with torch.no_grad():
        B.copy_(drawn((4, 2), 5))
    starts = [p.detach().clone() for p in (A, B, head)]
    for factors in ((1.0, 0.9, 0.9), (0.9, 0.9, 0.81)):
        for p in (A, B, head):
            p.grad = torch.zeros_like(p)
        optimizer.step()
        for p, start, factor in zip((A, B, head), starts, factors, strict=True):
            near(p, start * factor, 1e-6)


def test_d_adaptation_is_the_authors():
    shapes = [(4, 6), (6,)]
    parameters = [nn.Parameter(drawn(s, 11 + i)) for i, s in enumerate(shapes)]
    targets = [drawn(s, 13 + i) for i, s in enumerate(shapes)]
    rule = optimizers.get("d_adaptation").model_validate({"name": "d_adaptation"})
    groups = [
        {"params": [p], "weight_decay": d, RATIO: 1.0, "betas": (0.9, 0.999), "eps": 1e-8}
        for p, d in zip(parameters, (0.1, 0.0), strict=True)
    ]
    optimizer = rule.build(groups, 1.0, None)

    def loss() -> Tensor:
        return sum(((p - t) ** 2).sum() for p, t in zip(parameters, targets, strict=True))

    descend(optimizer, loss, 12)
    wanted = GOLDEN["d_adaptation"]["steps"][-1]
    assert float(optimizer.param_groups[0]["d"]) == pytest.approx(wanted["d"], rel=1e-5)
    for p, value in zip(parameters, wanted["values"], strict=True):
        near(p, value)


def test_lion_by_hand():
    p = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer = build("lion", [p], 0.1)
    w, m = p.detach().clone(), torch.zeros(3)
    for step in range(4):
        g = torch.tensor([1.0, -1.0, (-1.0) ** step * 3])
        p.grad = g.clone()
        optimizer.step()
        w -= 0.1 * (0.9 * m + 0.1 * g).sign()
        m = 0.99 * m + 0.01 * g
        near(p, w, 1e-6)


def test_adafactor_is_transformers():
    """Below a rate of 1 / sqrt(t) the two are the same; torch adds its eps to the squares."""
    from transformers.optimization import Adafactor

    start = drawn((6, 9), 1)
    target = drawn((6, 9), 2)
    found, wanted = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = build("adafactor", [found], 0.02)
    theirs = Adafactor([wanted], lr=0.02, relative_step=False)
    descend(ours, lambda: ((found - target) ** 2).sum(), 8)
    descend(theirs, lambda: ((wanted - target) ** 2).sum(), 8)
    near(found, wanted.detach(), 1e-4)


def test_8_bit_moments_give_nearly_adamws_step():
    pytest.importorskip("bitsandbytes")
    start, target = drawn((64, 80), 1), drawn((64, 80), 2)
    values = []
    for name in ("adamw", "adamw_8bit"):
        p = nn.Parameter(start.clone())
        descend(build(name, [p], 0.01), lambda p=p: ((p - target) ** 2).sum(), 5)
        values.append(p.detach() - start)
    assert not torch.equal(*values)
    assert float((values[0] - values[1]).norm() / values[0].norm()) < 0.05


def test_muons_update_is_nearly_orthogonal():
    """All singular values are near 0.2 sqrt(max(rows, columns)) times the rate."""
    p = nn.Parameter(torch.zeros(8, 12))
    bias = nn.Parameter(torch.zeros(3))
    optimizer = build("muon", [p, bias], 0.1)
    p.grad = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    bias.grad = torch.tensor([1.0, -5.0, 2.0])
    optimizer.step()
    values = torch.linalg.svdvals(p.detach()) / (0.1 * 0.2 * 12**0.5)
    assert values.min() > 0.5
    assert values.max() < 1.5
    near(bias, [-0.1, 0.1, -0.1])


def test_embeddings_and_a_new_head_are_not_muons(tiny):
    model = tiny("bert")
    attachment = attach(methods.get("full")(), model)
    trained = attachment.trained()
    first, _ = build("muon", trained.values(), 0.1, attachment).parts
    assert isinstance(first, torch.optim.Muon)
    chosen = {id(p) for group in first.param_groups for p in group["params"]}
    matrices = {name for name, p in trained.items() if p.ndim == 2}
    spared = {name for name in matrices if "embeddings." in name} | model.newly_initialised
    assert {name for name, p in trained.items() if id(p) in chosen} == matrices - spared
    assert len(matrices & spared) == 4


def test_schedule_free_is_the_mean_of_the_steps():
    """At a constant rate x is the mean of z_1 ... z_t, and y = (1 - b1) z + b1 x."""
    p = nn.Parameter(drawn((5,), 1))
    optimizer = build("schedule_free", [p], 0.1)
    zs = []
    for _ in range(6):
        descend(optimizer, lambda: (p**2).sum(), 1)
        zs.append(optimizer.state[p]["z"].clone())
    x = torch.stack(zs).mean(0)
    near(p, 0.1 * zs[-1] + 0.9 * x)
    optimizer.eval()
    near(p, x)


def test_prodigys_estimate_grows_to_the_distance():
    """d is a lower bound of the distance to the solution in the largest number, and grows to its
    order from one in a million."""
    p = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = build("prodigy", [p], 1.0)
    descend(optimizer, lambda: p.abs().sum(), 200)
    assert 0.1 < float(optimizer.param_groups[0]["d"]) <= 3.0


SCHEDULES = [
    ({"schedule": "cosine", "min_rate": 0.1}, "cosine_with_min_lr", {"min_lr_rate": 0.1}),
    ({"schedule": "cosine", "restarts": 3}, "cosine_with_restarts", {"num_cycles": 3}),
    (
        {"schedule": "polynomial", "power": 2.0, "min_rate": 0.2},
        "polynomial",
        {"power": 2.0, "lr_end": 0.1},
    ),
    ({"schedule": "linear", "min_rate": 0.2}, "polynomial", {"power": 1.0, "lr_end": 0.1}),
    (
        {"schedule": "wsd", "decay": 0.25, "min_rate": 0.05},
        "warmup_stable_decay",
        {"num_decay_steps": 10, "min_lr_ratio": 0.05},
    ),
    ({"schedule": "linear"}, "linear", {}),
    ({"schedule": "cosine"}, "cosine", {}),
    ({"schedule": "constant"}, "constant_with_warmup", {}),
]


@pytest.mark.parametrize(("fields", "theirs", "options"), SCHEDULES)
@pytest.mark.parametrize("warm", [0, 6])
def test_schedules_are_transformers(fields, theirs, options, warm):
    from transformers import get_scheduler

    total = 40
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    reference = get_scheduler(theirs, optimizer, warm, total, scheduler_specific_kwargs=options)
    settings = Train(learning_rate=0.5, warmup=float(warm), **fields)
    # theirs starts wsd's warm-up at its least rate, and ours every warm-up at zero
    first = warm if theirs == "warmup_stable_decay" else 0
    for step in range(total):
        wanted = reference.get_last_lr()[0]
        if step >= first:
            assert learning_rate(settings, step, total) == pytest.approx(wanted, abs=1e-12), step
        optimizer.step()
        reference.step()
