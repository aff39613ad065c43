"""Methods whose change is not LoRA's product: MAP, MoRA, C3A, FourierFT, SingLoRA, LoKr, LoHa and
RandLoRA, against stock PEFT where it has them, against the authors' code, and by their formulas."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lorakit.adapters.attach import attach_adapter
from lorakit.adapters.files import read_adapter
from lorakit.adapters.save import save_adapter
from lorakit.errors import AdapterError, ModelError
from lorakit.methods import methods
from lorakit.methods.reparam._delta import MethodDelta
from lorakit.nn.select import Site
from tests.conftest import small_method
from tests.parity.compare import gap

CLASSIFIER, CAUSAL = "SequenceClassification", "CausalLM"
TASK = {CLASSIFIER: "SEQ_CLS", CAUSAL: "CAUSAL_LM"}
SAME = 2e-6
"""Of logits, relative to the largest: PEFT's formulas have another order of sums in float32."""
PLACES = [
    ("roberta", CLASSIFIER, ["query", "value"]),
    ("llama", CAUSAL, ["q_proj", "v_proj", "down_proj"]),
    ("gpt2", CAUSAL, ["c_attn"]),
]
METHODS = {
    "c3a": ({"block_size": 8}, ("C3AConfig", {"block_size": 8})),
    "c3a odd": ({"block_size": 1}, ("C3AConfig", {"block_size": 1})),
    "fourierft": (
        {"n": 40, "scaling": 20.0, "seed": 5},
        ("FourierFTConfig", {"n_frequency": 40, "scaling": 20.0, "random_loc_seed": 5}),
    ),
    "lokr": ({"r": 2, "alpha": 6.0}, ("LoKrConfig", {"r": 2, "alpha": 6})),
    "lokr full": ({"r": 4, "alpha": 6.0}, ("LoKrConfig", {"r": 4, "alpha": 6})),
    "lokr factor": (
        {"r": 3, "factor": 5},
        ("LoKrConfig", {"r": 3, "alpha": 8, "decompose_factor": 5}),
    ),
    "loha": ({"r": 3, "alpha": 6.0}, ("LoHaConfig", {"r": 3, "alpha": 6})),
    "randlora": (
        {"r": 8, "alpha": 20.0, "seed": 3},
        ("RandLoraConfig", {"r": 8, "randlora_alpha": 20, "projection_prng_key": 3}),
    ),
    "randlora uneven": (
        {"r": 5, "alpha": 20.0},
        ("RandLoraConfig", {"r": 5, "randlora_alpha": 20}),
    ),
}
"""Name -> (our fields, PEFT's configuration)."""
WITH_CONV1D = ("fourierft", "randlora")
"""PEFT's classes of the others do not adapt GPT-2's Conv1D."""
CASES = [
    (name, *place)
    for name in METHODS
    for place in PLACES
    if place[0] != "gpt2" or name.split()[0] in WITH_CONV1D
]
IDS = [f"{name}-{family}" for name, family, *_ in CASES]
GOLDEN = json.loads((Path(__file__).parent / "golden" / "dense.json").read_text())["cases"]


def _peft() -> Any:
    return pytest.importorskip("peft")


def _attached(tiny, name, family, head, targets):
    model = tiny(family, head)
    torch.manual_seed(0)
    patterns = tuple(f"*.{target}" for target in targets)
    attachment = methods.get(name.split()[0])(targets=patterns, **METHODS[name][0]).attach(
        model.model, model.roles, model.newly_initialised
    )
    return model, attachment


def _wrapped(model, name, head, targets):
    kind, fields = METHODS[name][1]
    config = getattr(_peft(), kind)(task_type=TASK[head], target_modules=targets, **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _peft().get_peft_model(model.model, config)


@torch.no_grad()
def _move(parameters) -> None:
    """Add noise to every number that trains, so that none keeps a special value."""
    generator = torch.Generator().manual_seed(3)
    for p in parameters:
        spread = 0.1 * p.abs().mean() if p.any() else 0.3
        p.add_(spread * torch.randn(p.shape, generator=generator))


@pytest.mark.peers
@pytest.mark.parametrize(("name", "family", "head", "targets"), CASES, ids=IDS)
def test_stock_peft_reads_ours_and_trains_as_many_numbers(
    tiny, about, tmp_path, name, family, head, targets
):
    model, attachment = _attached(tiny, name, family, head, targets)
    _move(attachment.trained().values())
    kind = "causal" if head == CAUSAL else "classification"
    saved = about(model, attachment, base="base", head=kind)
    save_adapter(tmp_path / "adapter", attachment, saved)
    base = tiny(family, head)
    plain = base.logits()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        base.model = _peft().PeftModel.from_pretrained(base.model, tmp_path / "adapter")
    said = [str(w.message) for w in caught]
    assert not [text for text in said if "missing" in text.lower() or "unexpected" in text.lower()]
    assert (plain - model.logits()).abs().max() > 1e-3
    assert gap(base.logits(), model.logits()) <= SAME
    theirs = _wrapped(tiny(family, head), name, head, targets)
    count = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert count == sum(p.numel() for p in attachment.trained().values())


@pytest.mark.peers
@pytest.mark.parametrize(("name", "family", "head", "targets"), CASES, ids=IDS)
def test_we_read_what_peft_saved(tiny, tmp_path, name, family, head, targets):
    model = tiny(family, head)
    torch.manual_seed(0)
    model.model = _wrapped(model, name, head, targets)
    _move(p for p in model.model.parameters() if p.requires_grad)
    model.model.save_pretrained(tmp_path)
    other = tiny(family, head)
    plain = other.logits()
    file = read_adapter(tmp_path)
    attachment = attach_adapter(file, other.model, other.roles, other.newly_initialised)
    assert attachment.method.name == name.split()[0]
    wanted = model.logits()
    assert gap(other.logits(), wanted) <= SAME
    assert (plain - wanted).abs().max() > 1e-3
    attachment.merge()
    assert gap(other.logits(), wanted) <= 10 * SAME


@pytest.mark.peers
@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        ("LoKrConfig", {"r": 2, "decompose_both": True}, "decompose_both"),
        ("LoHaConfig", {"r": 2, "alpha_pattern": {"query": 3}}, "alpha_pattern"),
        ("RandLoraConfig", {"r": 8, "sparse": True}, "sparse"),
        ("FourierFTConfig", {"n_frequency": 9, "n_frequency_pattern": {"query": 4}}, "n_frequency"),
        ("C3AConfig", {"block_size": 8, "block_size_pattern": {"query": 4}}, "block_size"),
    ],
)
def test_what_a_method_does_not_do_is_refused(tiny, tmp_path, kind, fields, field):
    model = tiny("roberta", CLASSIFIER)
    config = getattr(_peft(), kind)(task_type="SEQ_CLS", target_modules=["query"], **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _peft().get_peft_model(model.model, config).save_pretrained(tmp_path)
    other = tiny("roberta", CLASSIFIER)
    with pytest.raises(AdapterError, match=field):
        attach_adapter(read_adapter(tmp_path), other.model, other.roles, other.newly_initialised)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["c3a", "fourierft", "lokr", "loha", "randlora"])
def test_ten_steps_of_sgd_are_those_of_peft(tiny, name):
    """So the gradients are PEFT's too."""
    place = ("llama", CAUSAL, ["q_proj", "down_proj"])
    ours, attachment = _attached(tiny, name, *place)
    theirs = tiny("llama", CAUSAL)
    theirs.model = _wrapped(theirs, name, CAUSAL, place[2])
    ends = attachment.method.peft.tensors
    with torch.no_grad():
        for path, delta in attachment.deltas.items():
            layer = theirs.model.get_submodule(f"base_model.model.{path}")
            for own, value in delta.named_parameters():
                getattr(layer, ends[own])["default"].copy_(value)
    losses = []
    for model, parameters in (
        (ours, list(attachment.trained().values())),
        (theirs, [p for p in theirs.model.parameters() if p.requires_grad]),
    ):
        optimizer = torch.optim.SGD(parameters, lr=0.05)
        losses.append([])
        for _ in range(10):
            loss = model.loss()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[-1].append(float(loss.detach()))
    assert losses[0][-1] < losses[0][0]
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)


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
    _peft()
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
