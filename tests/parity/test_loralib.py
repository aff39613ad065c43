"""loralib, the paper's reference code: Linear, and MergedLinear on a Conv1D."""

from __future__ import annotations

import pytest
import torch

from lorakit.methods.reparam.lora import LoRA
from lorakit.nn.linear import weight_of
from tests.attaching import attach
from tests.parity.compare import EXACT, SAME, TEN_STEPS, gap, losses_of_ten_steps, replace_layer
from tests.rounding import assert_near

pytestmark = pytest.mark.peers
loralib = pytest.importorskip("loralib")

R, ALPHA = 4, 6
LINEAR = [
    f"roberta.encoder.layer.{i}.attention.self.{role}"
    for i in range(2)
    for role in ("query", "value")
]
FUSED = [f"transformer.h.{i}.attn.c_attn" for i in range(2)]


def _linear(tiny):
    ours, theirs = tiny("roberta", dtype=EXACT), tiny("roberta", dtype=EXACT)
    attachment = attach(LoRA(r=R, alpha=ALPHA), ours)
    for path in LINEAR:
        replace_layer(theirs, path, loralib.Linear(32, 32, r=R, lora_alpha=ALPHA))
    return ours, attachment, theirs


def _fused(tiny):
    """loralib on GPT-2 (`examples/NLG`): enable_lora for q and v, fan_in_fan_out for Conv1D."""
    ours, theirs = (tiny("gpt2", "CausalLM", dtype=EXACT) for _ in range(2))
    attachment = attach(LoRA(r=R, alpha=ALPHA), ours)
    for path in FUSED:
        layer = loralib.MergedLinear(
            32, 96, r=R, lora_alpha=ALPHA, enable_lora=[True, False, True], fan_in_fan_out=True
        )
        replace_layer(theirs, path, layer)
    return ours, attachment, theirs


def _factors(attachment, theirs):
    """(our parameter, which of theirs, which rows of it) for every A and B."""
    for name, delta in attachment.deltas.items():
        path, _, part = name.partition("[")
        layer = theirs.model.get_submodule(path)
        first = part != "value]"
        a_rows = slice(None) if not part else slice(0, R) if first else slice(R, 2 * R)
        b_rows = slice(None) if not part else slice(0, 32) if first else slice(32, 64)
        yield delta.A, layer.lora_A, a_rows
        yield delta.B, layer.lora_B, b_rows


@pytest.fixture(params=[_linear, _fused], ids=["Linear-roberta", "MergedLinear-gpt2"])
def pair(request, tiny):
    ours, attachment, theirs = request.param(tiny)
    generator = torch.Generator().manual_seed(7)
    loralib.mark_only_lora_as_trainable(theirs.model)
    theirs.model.train()  # or loralib merges while it is asked
    ours.model.train()
    with torch.no_grad():
        for our, their, rows in _factors(attachment, theirs):
            our.normal_(std=0.3, generator=generator)
            their[rows] = our
    return ours, attachment, theirs


def test_the_same_number_of_parameters(pair):
    ours, attachment, theirs = pair
    our = sum(
        p.numel() for name, p in attachment.trained().items() if name not in ours.newly_initialised
    )
    assert our == sum(p.numel() for p in theirs.model.parameters() if p.requires_grad) > 0


def test_forward(pair):
    ours, attachment, theirs = pair
    wanted = theirs.model(**theirs.inputs).logits
    assert gap(ours.model(**ours.inputs).logits, wanted) <= SAME
    with attachment.off():
        assert gap(ours.model(**ours.inputs).logits, wanted) > 1e-2


def test_gradients(pair):
    ours, attachment, theirs = pair
    ours.loss().backward()
    theirs.loss().backward()
    for our, their, rows in _factors(attachment, theirs):
        assert our.grad.abs().max() > 0
        assert_near(our.grad, their.grad[rows])


def test_merged_weights(pair):
    ours, attachment, theirs = pair
    theirs.model.eval()  # loralib merges here
    attachment.merge()
    for site in attachment.sites:
        merged = weight_of(site.module)
        their = theirs.model.get_submodule(site.path).weight
        assert_near(merged, their.T if "c_attn" in site.path else their)
    assert gap(ours.logits(), theirs.logits()) <= SAME


def test_training_step_by_step(pair):
    ours, attachment, theirs = pair
    with torch.no_grad():
        for our, their, rows in _factors(attachment, theirs):
            if our.shape[1] == R:  # B
                our.zero_()
                their[rows] = 0
    deltas = [our for our, _, _ in _factors(attachment, theirs)]
    losses = [
        losses_of_ten_steps(ours, deltas),
        losses_of_ten_steps(theirs, [p for p in theirs.model.parameters() if p.requires_grad]),
    ]
    assert losses[0] == pytest.approx(losses[1], rel=TEN_STEPS)
    for our, their, rows in _factors(attachment, theirs):
        assert float((our - their[rows]).abs().max()) <= TEN_STEPS
