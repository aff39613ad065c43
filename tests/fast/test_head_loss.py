"""The loss without logits against the one with them."""

from __future__ import annotations

import pytest
import torch

from lorakit.fast import head_loss as module
from lorakit.fast import onednn as operators
from lorakit.fast.head_loss import head_loss, head_loss_reference
from tests.rounding import assert_near

TERMS = 64
"""6 numbers of a row, 11 words, up to 9 rows, and the smoothing's sums."""
onednn = pytest.mark.skipif(not operators.works(torch.float32), reason="oneDNN has no fp32 here")


def _operands(n: int, dtype=torch.float32, bias: bool = False):
    g = torch.Generator().manual_seed(0)
    h = torch.randn(n, 6, generator=g, dtype=dtype).requires_grad_()
    weight = torch.randn(11, 6, generator=g, dtype=dtype)
    return (
        h,
        weight,
        torch.randn(11, generator=g, dtype=dtype) if bias else None,
        torch.randint(0, 11, (n,), generator=g),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n", [1, 4, 5, 9])
@pytest.mark.parametrize("by_onednn", [False, pytest.param(True, marks=onednn)])
def test_value_and_gradient_are_the_references(n, bias, smoothing, by_onednn, monkeypatch):
    monkeypatch.setattr(module, "ROWS_AT_A_TIME", 4)  # several chunks, the last one smaller
    operands = _operands(n, bias=bias)
    both = (operands[1], operands[1].T) if by_onednn else None
    found, wanted = head_loss(*operands, smoothing, both), head_loss_reference(*operands, smoothing)
    assert_near(found, wanted, TERMS)
    ours, theirs = (torch.autograd.grad(3 * loss, operands[0])[0] for loss in (found, wanted))
    assert_near(ours, theirs, TERMS)


def test_gradcheck():
    h, weight, bias, labels = _operands(5, torch.float64, bias=True)
    assert torch.autograd.gradcheck(lambda h: head_loss(h, weight, bias, labels, 0.1), (h,))


def test_half_precision_is_as_near_as_the_plain_one():
    h, weight, _, labels = _operands(64, torch.float64)
    exact = head_loss_reference(h, weight, None, labels).detach()
    half = [x.detach().bfloat16() for x in (h, weight)]
    ours, plain = (f(*half, None, labels) for f in (head_loss, head_loss_reference))
    assert ours.dtype == torch.float32
    assert abs(float(ours - exact)) <= abs(float(plain - exact)) + 1e-3 * float(exact)


def test_autocast_computes_in_its_precision():
    h, weight, _, labels = _operands(8)
    with torch.autocast("cpu", torch.bfloat16):
        found = head_loss(h, weight, None, labels)
    wanted = head_loss(h.bfloat16(), weight.bfloat16(), None, labels)
    torch.testing.assert_close(found, wanted)
    assert torch.autograd.grad(found, h)[0].dtype == torch.float32


def test_without_gradients_nothing_is_formed_for_them():
    h, weight, _, labels = _operands(3)
    assert not head_loss(h.detach(), weight, None, labels).requires_grad
