"""The contract that every method in the folder keeps, on models of every shape."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch

from lorakit.errors import AdapterError, ModelError
from lorakit.inits import inits
from lorakit.methods import methods
from lorakit.methods.reparam import Reparam
from lorakit.nn.select import ROLES
from lorakit.training.loop import recompute_activations
from tests.attaching import attach
from tests.conftest import RAMPED
from tests.rounding import assert_near
from tests.tiers import tier as marks_of

FAMILIES = tuple(
    "bert roberta distilbert deberta deberta-v2 gpt2 gpt_neox bloom opt llama phi3 t5".split()
)
UNFIT = {("bitfit", "llama"), ("bitfit", "phi3"), ("bitfit", "t5")}
"""No bias vectors: refused, see test_subset.py."""
ENCODERS = ("bert", "roberta", "distilbert", "deberta", "deberta-v2", "t5")
UNFIT |= {("lora_bias", family) for family in ("phi3", "t5")}
"""Layers without a bias: it is used there, and not merged, see test_hub_variants.py."""
PROMPTS = {name for name in methods.names() if methods.get(name)().added_tokens}
UNFIT |= {(name, family) for name in PROMPTS for family in ENCODERS}
"""No decoders: refused, see test_prompt.py."""
UNFIT |= {("xlora", "t5"), ("xlora", "deberta-v2")}
"""Two stacks, and positions that go through W_q: refused, see parity/test_xlora.py."""
SHAPES = ("roberta", "gpt2", "gpt_neox", "phi3", "t5")
"""A family for each way that a weight is stored: plain, Conv1D, fused head by head, fused in
blocks, and two stacks. LoRA, which adapts rows of weights, meets them in the unit tier."""
WHOLE_LAYERS = ("roberta", "gpt2")
"""The other methods see layers and blocks, not rows: an encoder and a decoder."""


def _families(name: str) -> tuple[str, ...]:
    """The delta and the attachment of a reparametrisation are LoRA's, which meets every family."""
    return SHAPES if name != "lora" and issubclass(methods.get(name), Reparam) else FAMILIES


CASES = [
    (name, dict(methods.get(name).tiny), family)
    for name in methods.names()
    for family in _families(name)
    if (name, family) not in UNFIT
]
CASES += [
    ("lora", {"targets": ROLES, "r": 3, "alpha": 5.0, "init": "gaussian"}, family)
    for family in ("roberta", "gpt2", "gpt_neox", "llama", "phi3", "t5")
]
CASES += [
    ("lora", {"init": init}, family)
    for init in inits.names()
    if init != "kaiming"
    for family in WHOLE_LAYERS
]
CASES += [("hydra", {"through_bias": True}, family) for family in WHOLE_LAYERS]
IDS = [
    f"{name}{' all roles' if 'targets' in fields else ''} {fields.get('init', '')}"
    f"{' through_bias' if 'through_bias' in fields else ''}-{family}"
    for name, fields, family in CASES
]

HARDEST = "gpt2"
"""A fused weight in a Conv1D, for the other reparametrisations: their delta and attachment are
LoRA's."""


def tier(name: str, fields: dict, family: str) -> list[pytest.MarkDecorator]:
    """All other pairs of a method and a family are in `make slow`."""
    other = name != "lora" and issubclass(methods.get(name), Reparam)
    if other or ("init" in fields and "targets" not in fields):
        unit = family == HARDEST
    elif name != "lora":
        unit = family in WHOLE_LAYERS
    elif "targets" in fields:
        unit = family == "gpt_neox"
    else:
        unit = family in SHAPES
    return marks_of(unit)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(case, id=id, marks=tier(*case)) for id, case in zip(IDS, CASES, strict=True)
    ],
)
def case(request, tiny):
    """(what makes a new tiny model of the same weights, the method)."""
    name, fields, family = request.param
    return partial(tiny, family), methods.get(name)(**fields)


def _attached(new, method, seed: int = 0, steps: int = 0, **changes):
    model = new(**changes)
    torch.manual_seed(seed)
    attachment = attach(method, model)
    if steps:
        model.step(attachment, steps=steps)
    return model, attachment


@pytest.fixture(scope="module")
def trained(case):
    """(what makes a new model, the method, a model that was trained for two steps, its attachment):
    for tests that leave both as they were."""
    new, method = case
    return new, method, *_attached(new, method, steps=2)


def frozen_tensors(attachment) -> list[tuple[str, int]]:
    """What an adapter holds and does not train: (name, numbers)."""
    deltas = getattr(attachment, "deltas", getattr(attachment, "inserts", {}))
    held = [(f"{site}.{n}", p) for site, d in deltas.items() for n, p in d.named_parameters()]
    shared = getattr(attachment, "shared", None)
    if shared is not None and getattr(attachment.method, "saves_shared", True):
        held += [(f"shared.{n}", p) for n, p in shared.named_parameters()]
    return [(name, p.numel()) for name, p in held if not p.requires_grad]


def test_every_method_of_the_folder_is_here():
    assert len(methods.names()) >= 3
    assert (
        {name for name, _, _ in CASES}
        == set(methods.names())
        >= {"lora", "full", "bitfit", "adapter_h"}
    )


def test_attaching_changes_no_output(case):
    new, method = case
    base = new()
    before = base.logits()
    attachment = attach(method, base)
    if not method.starts_at_base:
        # init lorc does where the base is not quantized
        assert method.name == "lora" or not torch.equal(base.logits(), before)
        with attachment.off():
            assert torch.equal(base.logits(), before)
        return
    assert torch.equal(base.logits(), before)


def test_base_parameters_keep_their_names_and_values(case):
    new, method = case
    base = new()
    before = {
        name: (parameter, parameter.detach().clone())
        for name, parameter in base.model.named_parameters()
    }
    classes = {name: type(module) for name, module in base.model.named_modules()}
    attach(method, base)
    after = dict(base.model.named_parameters())
    assert {
        name: type(module) for name, module in base.model.named_modules() if name in classes
    } == classes
    for name, (parameter, value) in before.items():
        assert after[name] is parameter, name
        assert torch.equal(parameter, value), name


def test_the_head_trains_and_so_does_something_else(case):
    new, method = case
    model, attachment = _attached(new, method)
    trained = attachment.trained()
    assert model.newly_initialised <= set(trained)
    assert set(trained) - model.newly_initialised
    assert {name for name, p in model.model.named_parameters() if p.requires_grad} == set(trained)


WHOLE = ("bitfit", "top_layers")
"""What they train meets, in a layer or between two, weights in half precision; they refuse such a
base."""
HALF = {id: case for id, case in zip(IDS, CASES, strict=True) if case[0] not in WHOLE}


@pytest.mark.parametrize(
    ("name", "fields", "family"),
    [pytest.param(*case, id=id, marks=tier(*case)) for id, case in HALF.items()],
)
class TestOnABfloat16Base:
    def test_what_trains_is_float32(self, tiny, name, fields, family):
        _, attachment = _attached(
            partial(tiny, family), methods.get(name)(**fields), dtype=torch.bfloat16
        )
        trained = attachment.trained()
        assert {p.dtype for p in trained.values()} == {torch.float32}
        frozen = {
            p.dtype
            for n, p in attachment.model.named_parameters()
            if n not in trained and "delta." not in n
        }
        assert frozen == ({torch.bfloat16} if name != "full" else set())

    @pytest.mark.parametrize(
        "autocast", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "autocast"]
    )
    def test_one_step(self, tiny, name, fields, family, autocast):
        if autocast and (name, family) == ("full", "deberta"):
            pytest.skip(
                "transformers' DeBERTa v1 masks bfloat16 scores with the least float32 under "
                "autocast"
            )
        model, attachment = _attached(
            partial(tiny, family), methods.get(name)(**fields), dtype=torch.bfloat16
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model.step(attachment)
        assert min(attachment.delta_norms().values()) > 0
        assert {p.dtype for p in attachment.trained().values()} == {torch.float32}
        assert model.logits().isfinite().all()


def test_what_trains_is_float64_on_a_float64_base(case):
    new, method = case
    _, attachment = _attached(new, method, dtype=torch.float64)
    assert {p.dtype for p in attachment.trained().values()} == {torch.float64}


def test_one_step_of_adamw_reaches_every_delta_and_nothing_frozen(case):
    new, method = case
    model, attachment = _attached(new, method)
    assert attachment.delta_norms()
    assert set(attachment.delta_norms().values()) == {0.0}
    trained = set(attachment.trained())
    before = {name: p.detach().clone() for name, p in model.model.named_parameters()}
    model.step(attachment)
    # a bias of the keys shifts all scores of a row alike: its gradient is rounding noise, and may
    # be zero
    norms = {
        name: n
        for name, n in attachment.delta_norms().items()
        if not re.search(r"k(ey|_proj|_lin)\.bias", name)
    }
    assert all(norm > 0 for norm in norms.values()), norms
    moved = {name for name, p in model.model.named_parameters() if not torch.equal(p, before[name])}
    if method.name in RAMPED:  # the hook before the step sets it
        moved = {name for name in moved if not name.endswith(".u")}
    assert moved <= trained
    assert model.newly_initialised <= moved


def test_a_state_loads_into_a_fresh_copy_bit_for_bit(trained):
    new, method, model, attachment = trained
    state = attachment.state()
    copy, other = _attached(new, method, seed=1)
    with torch.no_grad():
        for name in copy.newly_initialised:
            copy.model.get_parameter(name).normal_()
    assert not torch.equal(copy.logits(), model.logits())
    other.load_state(state)
    assert torch.equal(copy.logits(), model.logits())
    again = other.state()
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_a_state_is_a_copy_on_the_cpu_of_what_trains(case):
    new, method = case
    model, attachment = _attached(new, method)
    state = attachment.state()
    numbers = sum(value.numel() for value in state.values())
    frozen = sum(numel for _, numel in frozen_tensors(attachment))
    assert numbers == frozen + sum(p.numel() for p in attachment.trained().values())
    before = {name: value.clone() for name, value in state.items()}
    model.step(attachment)
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert not any(value.requires_grad for value in state.values())
    assert all(value.device.type == "cpu" and value.is_contiguous() for value in state.values())


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(trained):
    _, _, model, attachment = trained
    before = model.logits()
    state = {name: value + 1 for name, value in attachment.state().items()}
    *others, name = sorted(state)
    value = state[name]
    damaged = {
        "missing": (name, {other: state[other] for other in others}),
        "left over": ("nowhere.weight", state | {"nowhere.weight": value}),
        "shape": (name, state | {name: torch.zeros(*value.shape, 2)}),
    }
    for damage, (named, given) in damaged.items():
        with pytest.raises(AdapterError, match=re.escape(named)):
            attachment.load_state(given)
        assert torch.equal(model.logits(), before), damage


@pytest.mark.parametrize(
    "dtype",
    # every training merges in float32 too, and proves it
    [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)],
    ids=str,
)
def test_merged_is_unmerged_and_a_plain_model(case, dtype):
    new, method = case
    plain = new(dtype=dtype)
    model, attachment = _attached(new, method, dtype=dtype, steps=3)
    wanted = model.logits()
    assert (wanted - plain.logits()).abs().max() > 1e-3
    if not method.merges:
        with pytest.raises(ModelError, match=f"{method.name} "):
            attachment.merge()
        assert method.name in (attachment.why_unmergeable() or "")
        assert torch.equal(model.logits(), wanted)
        return
    attachment.merge()
    assert_near(model.logits(), wanted)
    assert list(model.model.state_dict()) == list(plain.model.state_dict())
    modules = [(name, type(module)) for name, module in plain.model.named_modules()]
    assert [(name, type(module)) for name, module in model.model.named_modules()] == modules
    assert not any(module._forward_hooks for module in model.model.modules())
    plain.model.load_state_dict(model.model.state_dict())
    assert torch.equal(plain.logits(), model.logits())


def test_off_is_the_base_and_afterwards_it_is_back(trained):
    """Also after an error inside, and where the deltas are folded in meanwhile."""
    new, _, model, attachment = trained
    wanted_back = model.logits()
    base = new()
    with torch.no_grad():
        for name in model.newly_initialised:  # the head stays as it was trained
            base.model.get_parameter(name).copy_(model.model.get_parameter(name))
    wanted = base.logits()
    assert not torch.equal(wanted_back, wanted)
    with attachment.off():
        assert torch.equal(model.logits(), wanted)
        with attachment.folded():
            assert torch.equal(model.logits(), wanted)
    assert torch.equal(model.logits(), wanted_back)
    with pytest.raises(KeyError), attachment.off():
        raise KeyError
    assert torch.equal(model.logits(), wanted_back)


def test_detached_is_the_base_and_another_can_be_attached(case):
    """The proof of a run attaches the saved adapter to such a base."""
    new, method = case
    base = new()
    before = {name: p.detach().clone() for name, p in base.model.named_parameters()}
    model, attachment = _attached(new, method, steps=2)
    state, trained = attachment.state(), model.logits()
    attachment.detach()
    after = dict(model.model.named_parameters())
    assert after.keys() == before.keys()
    for name in before.keys() - attachment.newly_initialised:
        assert torch.equal(after[name], before[name]), name
    again = attach(method, model)
    again.load_state(state)
    assert torch.equal(model.logits(), trained)


def test_folded_computes_the_same_and_leaves_every_bit_as_it_was(trained):
    _, _, model, attachment = trained
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    wanted = model.logits()
    with attachment.folded():
        assert_near(model.logits(), wanted)
    assert torch.equal(model.logits(), wanted)
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in model.model.state_dict().items()
    )


def test_folded_weights_are_the_same_under_autocast(trained):
    """Texts are written from them inside it."""
    _, _, model, attachment = trained

    def folded():
        with attachment.folded():
            return [tensor.clone() for tensor in model.model.state_dict().values()]

    wanted = folded()
    with torch.autocast("cpu", torch.bfloat16):
        found = folded()
    assert all(map(torch.equal, found, wanted))


def test_folded_weights_hold_the_deltas(tiny):
    model = tiny("gpt2")
    attachment = attach(methods.get("lora")(targets=("query", "value")), model)
    for delta in attachment.deltas.values():
        torch.nn.init.normal_(delta.B)
    weight = attachment.sites[0].module.weight
    before = weight.detach().clone()
    with attachment.folded():
        assert not torch.equal(weight, before)
        assert not any(delta.active for delta in attachment.deltas.values())


def test_gradient_checkpointing_keeps_the_gradients(case):
    new, method = case
    if not method.recomputes:
        pytest.skip("a recipe with both is refused")
    gradients = []
    for checkpointing in (False, True):
        model, attachment = _attached(new, method, steps=1)
        model.model.train()
        if checkpointing:
            recompute_activations(model.model)
        model.loss().backward()
        gradients.append({name: p.grad for name, p in attachment.trained().items()})
    assert all(g is not None for g in gradients[1].values())
    assert_near(gradients[1], gradients[0])


def test_a_method_is_its_own_description(case):
    _, method = case
    assert type(method).model_validate(method.model_dump(mode="json")) == method
    with pytest.raises(ValueError, match="nonsense"):
        type(method).model_validate({"name": method.name, "nonsense": 1})
