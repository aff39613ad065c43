"""The methods that PEFT lacks compute what their authors' code computes.

golden/references.json has one entry for each: a weight and tensors of our own, dW as the authors'
code gave it, and the repository, commit and file of that code.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lorakit.errors import ModelError
from lorakit.methods import methods
from lorakit.methods.reparam._delta import MethodDelta
from lorakit.nn.select import Site
from tests.attaching import attach

GOLDEN = json.loads((Path(__file__).parent / "golden" / "references.json").read_text())
CASES = GOLDEN["cases"]
IDS = [f"{case['method']}-{case['repository'].split('/')[1]}-{i}" for i, case in enumerate(CASES)]
SAME = 5e-6


def _delta(case) -> Any:
    """The method's delta on the golden weight, with the golden tensors."""
    weight = torch.tensor(GOLDEN["W0"])
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False).requires_grad_(False)
    module.weight.copy_(weight)
    method = methods.get(case["method"]).model_validate({"name": case["method"], **case["fields"]})
    delta = MethodDelta(method, Site("w", module, "all", None, "w"), None).eval()
    delta.begin()
    assert not delta.matrix().any()
    with torch.no_grad():
        for name, values in case["tensors"].items():
            getattr(delta, name).copy_(torch.tensor(values))
    return delta


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_change_is_that_of_the_authors_code(case):
    delta = _delta(case)
    wanted = torch.tensor(case["dW"])
    assert wanted.abs().max() > 0.1
    if "chosen" in case:
        assert delta.chosen.tolist() == case["chosen"]
    torch.testing.assert_close(delta.matrix(), wanted, rtol=SAME, atol=SAME)
    x = torch.randn(3, wanted.shape[1], generator=torch.Generator().manual_seed(1))
    weight = torch.tensor(GOLDEN["W0"])
    with torch.no_grad():
        y = delta.add_to(x @ weight.T, x)
    torch.testing.assert_close(y, x @ (weight + wanted).T, rtol=1e-5, atol=1e-4)


def test_hydra_s_sequential_branch_gets_the_bias_too():
    """y = W0 x + b + B_p A_p x + B_s A_s (W0 x + b), as in the authors' code."""
    case = next(case for case in CASES if case["method"] == "hydra")
    weight = torch.tensor(GOLDEN["W0"])
    module = nn.Linear(weight.shape[1], weight.shape[0]).requires_grad_(False)
    with torch.no_grad():
        module.weight.copy_(weight)
    method = methods.get("hydra")(**case["fields"], through_bias=True)
    delta = MethodDelta(method, Site("w", module, "all", None, "w"), None).eval()
    with torch.no_grad():
        for name, values in case["tensors"].items():
            getattr(delta, name).copy_(torch.tensor(values))
        x = torch.randn(3, weight.shape[1], generator=torch.Generator().manual_seed(1))
        y = module(x)
        wanted = y + x @ delta.A_p.T @ delta.B_p.T + y @ delta.A_s.T @ delta.B_s.T
        torch.testing.assert_close(delta.add_to(y.clone(), x), wanted, rtol=1e-5, atol=1e-4)
        merged = x @ (weight + delta.matrix()).T + module.bias + delta.bias_change()
        torch.testing.assert_close(merged, wanted, rtol=1e-5, atol=1e-4)


def _matryoshka():
    return next(case for case in CASES if case["method"] == "matryoshka")


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_one_matryoshka_training_has_an_adapter_of_each_rank(k):
    case = _matryoshka()
    delta = _delta(case)
    a, b, scale = delta.method.at_rank(delta, k)
    assert a.shape[0] == b.shape[1] == k
    torch.testing.assert_close(scale * b @ a, torch.tensor(case["at_rank"][str(k)]))


@pytest.mark.parametrize("k", [0, 5])
def test_a_rank_that_was_not_trained_is_refused(k):
    delta = _delta(_matryoshka())
    with pytest.raises(ModelError, match=str(k)):
        delta.method.at_rank(delta, k)


def test_coto_switches_sites_on_with_the_probability_of_the_paper():
    """p = 0.1 + 0.9 t / (0.75 T), then 1."""

    class Switch:
        dropped = False

    method = methods.get("coto")()
    deltas = {str(i): Switch() for i in range(4000)}
    for step, wanted in ((0, 0.1), (300, 0.46), (750, 1.0), (999, 1.0)):
        method.before_step(deltas, step, 1000)
        share = sum(not d.dropped for d in deltas.values()) / len(deltas)
        assert share == pytest.approx(wanted, abs=0.03)


def test_coto_trains_one_site_where_all_are_off():
    switches = {str(i): SimpleNamespace(dropped=False) for i in range(2)}
    method = methods.get("coto")(first=0.01)
    for step in range(20):
        method.before_step(switches, step, 10_000)
        assert not all(d.dropped for d in switches.values())


@pytest.mark.parametrize(
    ("family", "head", "targets"),
    [("roberta", "SequenceClassification", ("query",)), ("mixtral", "CausalLM", ("experts:*",))],
)
def test_a_site_that_coto_drops_is_on_in_an_evaluation(tiny, family, head, targets):
    model = tiny(family, head)
    attachment = attach(methods.get("coto")(r=2, targets=targets), model)
    with torch.no_grad():
        for delta in attachment.deltas.values():
            delta.B.normal_(generator=torch.Generator().manual_seed(0))
    on = model.logits()
    for delta in attachment.deltas.values():
        delta.dropped = True
    assert torch.equal(model.logits(), on)
    model.model.train()
    found = model.loss()
    with attachment.off():
        assert torch.equal(model.loss(), found)


def test_droplora_drops_ranks_in_training_and_scales_the_others():
    case = next(case for case in CASES if case["method"] == "droplora")
    delta = _delta({**case, "fields": {**case["fields"], "rank_dropout": 0.75}}).train()
    with torch.no_grad():
        delta.B.fill_(1.0)
    torch.manual_seed(0)
    drawn = torch.stack([delta.method.writes(delta)[0] for _ in range(200)]).detach()
    assert set(drawn.flatten().tolist()) == {0.0, 4.0}
    # of two ranks one is kept at least
    assert drawn.any(1).all()
    # both with 1/16, and else one of them
    assert float((drawn > 0).float().mean()) == pytest.approx((1 + 1 / 16) / 2, abs=0.06)
    # merged, exported and measured with all ranks
    assert torch.equal(delta.factors()[1], delta.B.detach())


@pytest.mark.parametrize("trains", ["all", "core"])
@pytest.mark.parametrize("init", ["nystrom", "tucker"])
def test_a_square_in_the_middle_has_a_gradient_from_the_start(init, trains):
    fields = {"r": 2, "init": init, "trains": trains}
    delta = _delta({"method": "nlora", "fields": fields, "tensors": {}})
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    delta.add_to(torch.zeros(3, 6), x).sum().backward()
    assert delta.N.grad.abs().max() > 0
    assert delta.A.requires_grad == (trains == "all")


def test_nystrom_refuses_a_rank_that_the_weight_does_not_have():
    with pytest.raises(ModelError, match="9"):
        _delta({"method": "nlora", "fields": {"r": 9}, "tensors": {}})
