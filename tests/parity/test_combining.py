"""Beside PEFT's merge_utils: the same matrices from the same dW, weights and draws."""

from __future__ import annotations

import pytest
import torch

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
