"""Experts: deltas on the weights that one parameter holds for all experts of a layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lorakit.adapters.expert_tensors import stacked, unstacked
from lorakit.adapters.plain_lora import of_entire_modules
from lorakit.analysis._sites import refuse_unwatched
from lorakit.errors import AdapterError, ModelError, TargetError
from lorakit.methods import methods
from lorakit.methods.reparam import Reparam
from lorakit.nn.experts import _add_products, expert_stacks
from lorakit.nn.mixing import why_unmixable
from lorakit.nn.overlay import ModelState
from lorakit.nn.select import select
from lorakit.training.loop import recompute_activations
from lorakit.training.refuse import refuse_dead
from lorakit.verbs.proof import is_alive
from tests.attaching import attach
from tests.conftest import small_method
from tests.tiers import unit_or_slow

LAYOUTS = ("mixtral", "gpt_oss")
"""(experts, out, in), and (experts, in, out)."""
ON_EXPERTS = [
    name
    for name in methods.names()
    if issubclass(methods.get(name), Reparam) and small_method(name).on_experts
]


def _on_experts(name: str = "lora", *targets: str, **fields: Any) -> Any:
    changes = {"targets": targets or ("experts:*",), **fields}
    return small_method(name).model_copy(update=changes)


@torch.no_grad()
def _move(attachment: Any) -> None:
    torch.manual_seed(1)
    for parameter in attachment.trained().values():
        parameter.add_(torch.randn_like(parameter) / 5)
    attachment.before_step(9, 10)  # some rise from zero with the steps


@pytest.mark.parametrize("family", LAYOUTS)
def test_each_expert_computes_with_its_own_change(tiny, family):
    """It is the model with W0[e] + s B_e A_e in place of W0[e], and has its gradients."""
    model = tiny(family, "CausalLM")
    attachment = attach(_on_experts(), model)
    _move(attachment)
    changed = tiny(family, "CausalLM")
    own = dict(changed.model.named_parameters())
    for site in attachment.sites:
        a, b, scale = attachment.deltas[site.name].factors()
        change = scale * b @ a
        if site.module.is_transposed:
            change = change.T
        with torch.no_grad():
            own[site.path][site.expert] += change
    torch.testing.assert_close(model.logits(), changed.logits())
    assert all(hasattr(s.module.layer, s.module.name + "_experts") for s in attachment.sites)
    loss = model.loss()
    loss.backward()
    changed.model.requires_grad_(True)
    changed.loss().backward()
    site = attachment.sites[0]
    delta = attachment.deltas[site.name]
    wanted = own[site.path].grad[site.expert]
    if site.module.is_transposed:
        wanted = wanted.T
    torch.testing.assert_close(delta.B.grad, delta.scale * wanted @ delta.A.T)


def test_experts_of_several_ranks_and_one_without_a_change():
    """The smaller ranks are filled up with zeros."""
    torch.manual_seed(0)
    weight = torch.randn(3, 5, 4)
    pairs = [(torch.randn(r, 4), torch.randn(5, r)) for r in (1, 3)]
    a, b = pairs[0]
    c, d = pairs[1]
    found = _add_products(weight, [pairs[0], None, pairs[1]])
    torch.testing.assert_close(found - weight, torch.stack([b @ a, torch.zeros(5, 4), d @ c]))


@pytest.mark.parametrize("name", unit_or_slow(ON_EXPERTS, ["lora", "hra"]))
@pytest.mark.parametrize("family", LAYOUTS)
def test_off_folded_detached_and_merged(tiny, family, name):
    model = tiny(family, "CausalLM")
    before = model.logits()
    names = [n for n, _ in model.model.named_parameters()]
    attachment = attach(_on_experts(name, "query", "experts:*"), model)
    torch.testing.assert_close(model.logits(), before, rtol=1e-5, atol=1e-6)
    _move(attachment)
    on = model.logits()
    assert not torch.equal(on, before)
    with attachment.off():
        assert torch.equal(model.logits(), before)
    with attachment.folded():
        torch.testing.assert_close(model.logits(), on, rtol=1e-3, atol=1e-4)
    assert torch.equal(model.logits(), on)
    state = attachment.state()
    attachment.detach()
    assert torch.equal(model.logits(), before)
    assert [n for n, _ in model.model.named_parameters()] == names
    again = attach(_on_experts(name, "query", "experts:*"), model)
    again.load_state(state)
    again.before_step(9, 10)
    torch.testing.assert_close(model.logits(), on)
    again.merge()
    torch.testing.assert_close(model.logits(), on, rtol=1e-3, atol=1e-4)
    assert [n for n, _ in model.model.named_parameters()] == names


def test_it_learns_also_with_activations_that_are_computed_again(tiny):
    gradients = []
    for again in (False, True):
        model = tiny("mixtral", "CausalLM")
        torch.manual_seed(0)
        attachment = attach(_on_experts(), model)
        _move(attachment)
        if again:
            recompute_activations(model.model)
        model.model.train()
        first = model.loss()
        first.backward()
        gradients.append([p.grad.clone() for p in attachment.trained().values()])
        # nothing of the last pass is left in place of the parameter
        assert not [s for s in attachment.sites if s.module.name in vars(s.module.layer)]
        model.step(attachment, rate=0.02, steps=20)
        assert model.loss().item() < 0.9 * first.item()
    assert all(map(torch.equal, *gradients))


def test_the_parameter_is_back_after_an_error(tiny):
    model = tiny("mixtral", "CausalLM")
    attachment = attach(_on_experts(), model)
    layer = attachment.sites[0].module.layer
    with pytest.raises(TypeError):
        layer(torch.zeros(3, 16))  # without the choice of experts
    assert attachment.sites[0].module.name not in vars(layer)


def test_an_expert_that_no_token_reaches_is_not_dead(tiny):
    model = tiny("mixtral", "CausalLM")
    attachment = attach(_on_experts(), model)
    model.loss().backward()
    names = [site.name for site in attachment.sites]
    for parameter in attachment.deltas[names[0]].parameters():
        parameter.grad = torch.zeros_like(parameter)
    refuse_dead(attachment)
    norms = dict.fromkeys(names, 1.0)
    norms[names[0]] = 0.0
    assert is_alive(attachment, norms, (1, 1)).passed
    unmoved = {n: 0.0 if n.startswith(attachment.sites[0].path) else 1.0 for n in names}
    assert not is_alive(attachment, unmoved, (1, 1)).passed


def test_only_products_can_be_on_experts():
    """A method that changes a layer's output by more than the product is refused."""
    assert "lora" in ON_EXPERTS
    assert not {"dora", "hydra", "lora_bias", "fourierft"} & set(ON_EXPERTS)


@pytest.mark.parametrize(
    ("method", "error"),
    [
        (_on_experts("dora"), ModelError),
        (_on_experts("fourierft"), ModelError),
        (_on_experts(dropout=0.1), ModelError),
        (methods.get("lora")(targets=("experts:*",), init="eva"), ModelError),
        (_on_experts("lora", "experts:*", "experts:down_proj"), TargetError),
        (_on_experts("lora", "experts:query"), TargetError),
    ],
    ids=str,
)
def test_refused(tiny, method, error):
    model = tiny("mixtral", "CausalLM")
    with pytest.raises(error):
        attach(method, model)


def test_a_model_without_experts(tiny):
    model = tiny("llama", "CausalLM")
    assert not expert_stacks(model.model)
    with pytest.raises(TargetError, match="has none"):
        attach(_on_experts(), model)


def test_the_sites(tiny):
    model = tiny("mixtral", "CausalLM")
    sites = select(model.model, ["query", "experts:down_proj"], model.roles)
    experts = [site for site in sites if site.expert is not None]
    count = len(experts[0].module.weight)
    assert [site.name for site in experts[:count]] == [
        f"model.layers.0.mlp.experts.down_proj[{e}]" for e in range(count)
    ]
    # the parameter in PyTorch is (experts, width, inner)
    assert {site.shape for site in experts} == {tuple(experts[0].module.weight.shape[1:])}
    # in the model's order: the first layer's, then the second's
    assert [site.path.split(".")[2] for site in sites] == sorted(
        site.path.split(".")[2] for site in sites
    )


def test_an_overlay_leaves_nothing_behind(tiny):
    model = tiny("mixtral", "CausalLM")
    before = ModelState(model.model)
    attachment = attach(_on_experts(), model)
    layer = attachment.sites[0].module.layer
    overlay = before.overlay()
    overlay.take_off()
    places = ("_modules", "_forward_hooks", "_forward_hooks_always_called", "_forward_pre_hooks")
    assert not [place for place in places if len(getattr(layer, place)) > (place == "_modules")]


def test_what_does_not_support_experts_says_so(tiny):
    model = tiny("mixtral", "CausalLM")
    before = ModelState(model.model)
    attachment = attach(_on_experts(), model)
    assert "experts" in (why_unmixable(before.overlay()) or "")
    site = attachment.sites[0]
    a, b, _ = attachment.deltas[site.name].factors()
    with pytest.raises(AdapterError):
        of_entire_modules([(site, b, a)])
    with pytest.raises(TargetError):
        refuse_unwatched(attachment.sites)


def test_pefts_layout():
    pairs = [(torch.full((2, 3), float(e)), torch.full((5, 2), 10.0 + e)) for e in range(4)]
    pairs[1][1][:, 1] = 7.0
    a, b = stacked(pairs)
    assert a.shape == (8, 3)
    assert b.shape == (5, 8)
    assert a[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    # column k of every expert, then column k + 1
    assert b[0].tolist() == [10, 11, 12, 13, 10, 7, 12, 13]
    for (own_a, own_b), (back_a, back_b) in zip(pairs, unstacked(a, b, 4), strict=True):
        assert torch.equal(own_a, back_a)
        assert torch.equal(own_b, back_b)
    with pytest.raises(AdapterError):
        unstacked(a, b, 3)
