"""Methods whose change is not LoRA's product: MAP, MoRA, C3A, FourierFT, SingLoRA, LoKr, LoHa and
RandLoRA, against stock PEFT where it has them, against the authors' code, and by their formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lorakit.errors import ModelError
from lorakit.methods import methods
from lorakit.methods.reparam._delta import MethodDelta
from lorakit.nn.select import Site
from tests.conftest import small_method

GOLDEN = json.loads((Path(__file__).parent / "golden" / "dense.json").read_text())["cases"]


def _delta(name: str, shape: tuple[int, int], **fields: Any) -> Any:
    """The method's delta on a random weight (out, in)."""
    generator = torch.Generator().manual_seed(7)
    module = nn.Linear(shape[1], shape[0]).requires_grad_(False)
    module.weight.copy_(torch.randn(shape, generator=generator))
    method = methods.get(name).model_validate({"name": name, **fields})
    site = Site("w", module, "all", None, "w")
    delta = MethodDelta(method, site, method.shared([site])).eval()
    torch.manual_seed(0)
    delta.begin()
    assert not delta.matrix().any()
    return delta


@pytest.mark.peers
def test_lokr_divides_a_size_as_peft_does():
    pytest.importorskip("peft")
    from peft.tuners.lokr.layer import factorization

    from lorakit.methods.reparam.lokr import divided

    pairs = [(size, factor) for size in range(1, 150) for factor in (-1, 1, 2, 3, 5, 8, 16)]
    assert [divided(*pair) for pair in pairs] == [factorization(*pair) for pair in pairs]


def test_the_lengths_of_map_can_have_a_rate_of_their_own():
    method = methods.get("map")(rate_of_lengths=5.0)
    assert [method.rate_of(f"w.{name}") for name in "ABab"] == [1.0, 1.0, 5.0, 5.0]


def _mora_cases():
    return [case for case in GOLDEN if case["method"] == "mora"]


@pytest.mark.parametrize("case", _mora_cases(), ids=lambda c: f"{c['fields']['form']}{c['shape']}")
def test_mora_is_that_of_the_authors_code(case):
    delta = _delta("mora", tuple(case["shape"]), **case["fields"])
    with torch.no_grad():
        delta.M.copy_(torch.tensor(case["tensors"]["M"]))
    wanted = torch.tensor(case["dW"])
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(delta.matrix(), wanted, rtol=5e-6, atol=5e-6)
    factors = delta.factors()
    if case["fields"]["form"] == "rotary":
        assert factors is None
        return
    a, b, scale = factors
    torch.testing.assert_close(scale * b @ a, wanted, rtol=5e-6, atol=5e-6)


def test_mora_trains_as_many_numbers_as_lora_and_has_a_higher_rank():
    delta = _delta("mora", (96, 96), r=2)
    with torch.no_grad():
        delta.M.normal_()
    assert abs(delta.M.numel() / (2 * (96 + 96)) - 1) < 0.1
    assert torch.linalg.matrix_rank(delta.matrix()) == 96


@pytest.mark.parametrize("case", [c for c in GOLDEN if c["method"] == "singlora"], ids=str)
def test_singlora_is_that_of_the_reference_in_each_step_of_the_ramp(case):
    delta = _delta("singlora", tuple(case["shape"]), **case["fields"])
    with torch.no_grad():
        delta.A.copy_(torch.tensor(case["tensors"]["A"]))
    for step, wanted in case["by_step"].items():
        delta.method.before_step({"w": delta}, int(step), 10)
        torch.testing.assert_close(delta.matrix(), torch.tensor(wanted), rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize("shape", [(6, 6), (7, 4), (4, 7)])
def test_singlora_is_a_product_with_its_own_transpose(shape):
    out, in_ = shape
    delta = _delta("singlora", shape, r=3, alpha=6.0, ramp=0.0)
    delta.method.before_step({"w": delta}, 0, 10)
    both = delta.A @ delta.A.T
    assert delta.A.abs().max() <= max(shape) ** -0.5
    torch.testing.assert_close(delta.matrix(), 2.0 * both[:out, :in_].detach())
    assert delta.A.numel() == 3 * max(shape)


def test_map_is_two_lengths_and_two_directions():
    delta = _delta("map", (9, 7), r=3)
    weight = delta.weight
    assert float(delta.a) == pytest.approx(float(weight.norm()))
    with torch.no_grad():
        delta.a.mul_(1.5)
        delta.b.fill_(0.8)
    new = weight + delta.matrix()
    low = (delta.B @ delta.A).detach()
    wanted = 1.5 * weight + 0.8 * low / low.norm()
    torch.testing.assert_close(new, wanted, rtol=1e-5, atol=1e-5)
    # the lengths of A and B do not matter
    with torch.no_grad():
        delta.A.mul_(3)
        delta.B.mul_(0.1)
    torch.testing.assert_close(weight + delta.matrix(), wanted, rtol=1e-5, atol=1e-5)
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    bias = delta.site.module.bias
    with torch.no_grad():
        y = delta.add_to(x @ weight.T + bias, x)
    torch.testing.assert_close(y, x @ wanted.T + bias, rtol=1e-5, atol=1e-5)


def test_the_gradients_of_map_are_those_of_its_formula():
    delta = _delta("map", (9, 7), r=3)
    with torch.no_grad():
        delta.b.fill_(0.8)
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    weight = delta.weight
    low = delta.B @ delta.A
    new = delta.a * weight / weight.norm() + delta.b * low / low.norm()
    names = ("A", "B", "a", "b")
    tensors = [getattr(delta, name) for name in names]
    bias = delta.site.module.bias
    wanted = torch.autograd.grad((x @ new.T + bias).pow(3).sum(), tensors)
    found = torch.autograd.grad(delta.add_to(x @ weight.T + bias, x).pow(3).sum(), tensors)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_a_block_of_c3a_is_circulant():
    delta = _delta("c3a", (8, 12), block_size=4)
    with torch.no_grad():
        delta.w.normal_()
    dense = delta.matrix()
    index = (torch.arange(4) - torch.arange(4)[:, None]) % 4
    wanted = delta.w.detach()[:, :, index].permute(0, 2, 1, 3).reshape(8, 12) / 12
    torch.testing.assert_close(dense, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["c3a", "fourierft"])
def test_the_transform_of_bfloat16_is_in_float32(name):
    """A product in bfloat16 is within the rounding of x and y, not of the transform's steps."""
    delta = _delta(name, (64, 64), **{"c3a": {"block_size": 64}, "fourierft": {"n": 64}}[name])
    with torch.no_grad():
        next(delta.parameters()).normal_()
        x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
        exact = x.float() @ delta.matrix().T
        y = delta.add_to(torch.zeros(5, 64, dtype=torch.bfloat16), x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - exact).abs().max() <= 2**-7 * exact.abs().max()


@pytest.mark.parametrize(
    ("name", "shape", "fields", "words"),
    [
        ("mora", (16, 8), {"r": 8}, "r = 8"),
        ("c3a", (12, 8), {"block_size": 8}, "block_size = 8"),
        ("fourierft", (4, 5), {"n": 21}, "n = 21"),
    ],
)
def test_a_weight_that_does_not_fit_is_refused(name, shape, fields, words):
    with pytest.raises(ModelError, match=f"w is {shape[0]} x {shape[1]}.*{words}"):
        _delta(name, shape, **fields)


@pytest.mark.parametrize(
    "name", ["map", "mora", "c3a", "fourierft", "singlora", "lokr", "loha", "randlora"]
)
def test_the_loss_falls(tiny, name):
    model = tiny("roberta")
    torch.manual_seed(0)
    method = small_method(name)
    attachment = method.attach(model.model, model.roles, model.newly_initialised)
    for head in model.newly_initialised:  # so that the deltas alone learn
        model.model.get_parameter(head).requires_grad_(False)
    parts = [p for d in attachment.deltas.values() for p in d.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parts, lr=0.02)
    losses = []
    for step in range(15):
        attachment.before_step(step, 15)
        loss = model.loss()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
