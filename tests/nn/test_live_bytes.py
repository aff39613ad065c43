"""Bytes that a computation on shapes holds, against hand computation."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lorakit.nn.live_bytes import LiveBytes
from lorakit.nn.shapes import AsOnDevice

FP32 = 4


def empty(*shape, **more):
    return torch.empty(*shape, device="meta", **more)


def test_what_is_freed_does_not_count_any_more():
    with LiveBytes() as live:
        x = empty(1000)
        y = x + 1
        assert live.now == 2 * 1000 * FP32
        del x
        y = y + 1
    assert live.now == 1000 * FP32
    assert live.peak == 2 * 1000 * FP32


def test_views_and_what_was_there_before_count_nothing():
    weight = empty(100, 50)
    with LiveBytes([weight]) as live:
        weight.t().reshape(50, 100)
        weight.mul_(2)
    assert live.peak == 0


def test_what_autograd_keeps_counts():
    weight = empty(30, 20).requires_grad_()
    x = empty(7, 20)
    with LiveBytes([weight, x]) as live:
        # the product is an input of tanh's backward pass only as its result
        loss = torch.tanh(F.linear(x, weight)).sum()
        assert live.now == (7 * 30 + 1) * FP32
        loss.backward()
    assert weight.grad is not None
    # the loss, its gradient and the weight's are left
    assert live.now in ((30 * 20 + 1) * FP32, (30 * 20 + 2) * FP32)


def test_products_are_cast_as_autocast_does_and_weights_once():
    weight = empty(30, 20).requires_grad_()
    with LiveBytes([weight]) as live, AsOnDevice(torch.bfloat16) as casts:
        one = F.linear(empty(7, 20), weight)
        two = F.linear(empty(7, 20), weight)
    assert casts.dtype == one.dtype == two.dtype == torch.bfloat16
    # the weight in bf16, each input in bf16 for the weight's gradient, and the outputs
    assert live.now == 2 * (30 * 20 + 2 * 7 * 20 + 2 * 7 * 30)


def test_attention_keeps_no_matrix_of_all_pairs():
    q, k, v = (empty(2, 4, 256, 8, requires_grad=True) for _ in range(3))
    with LiveBytes([q, k, v]) as live, AsOnDevice(None):
        out = F.scaled_dot_product_attention(q, k, v)
    assert out.shape == q.shape
    assert live.peak < 2 * 4 * 256 * 256 * FP32 / 4
