"""`train.fast`: off is transformers' own model, auto the same losses and gradients to rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lorakit.bases.load import load
from lorakit.batches import IGNORE
from lorakit.fast import fast_training
from lorakit.fast.attention import NAME
from lorakit.fast.head_loss import head_loss
from lorakit.methods.reparam.lora import LoRA
from lorakit.models import Model
from lorakit.recipe.load import load_recipe
from lorakit.runs.folder import folder_of
from lorakit.tasks import Head
from lorakit.training import loop
from lorakit.training import loss as losses
from lorakit.training.loss import can_be_lean, loss_sum
from tests.attaching import attach
from tests.rounding import TINY, assert_near

BASES = {Head.CLASSIFICATION: "lorakit:tiny_encoder", Head.CAUSAL: "lorakit:tiny_gpt2"}


def _batch(head: Head) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 200, (4, 12), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    if head is Head.CAUSAL:
        labels = ids.masked_fill(mask == 0, IGNORE)
        labels[:, :3] = IGNORE
    else:
        labels = torch.tensor([0, 1, 1, 0])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _trained(head: Head, fast: str, dropout: float = 0.0):
    """A base with LoRA, in training mode."""
    torch.manual_seed(0)
    base = load(Model(name=BASES[head]), head.value, ["a", "b"], fast)
    attachment = attach(LoRA(r=4, dropout=dropout), base)
    generator = torch.Generator().manual_seed(2)
    for delta in attachment.deltas.values():
        nn.init.normal_(delta.B, std=0.1, generator=generator)
    base.model.train()
    return attachment


@pytest.mark.parametrize("head", BASES)
def test_the_losses_and_gradients_are_the_same(head):
    found = []
    for fast in ("auto", "off"):
        attachment = _trained(head, fast)
        batch = _batch(head)
        lean = fast == "auto" and head is Head.CAUSAL
        assert not lean or can_be_lean(attachment.model, batch)
        with fast_training(attachment.model, fast):
            loss = loss_sum(attachment.model, batch, head, lean=lean)
            loss.backward()
        gradients = {name: p.grad for name, p in attachment.trained().items()}
        found.append({"loss": loss.detach()} | gradients)
    assert_near(*found, TINY)


@pytest.mark.parametrize("head", BASES)
def test_off_is_the_plain_model(head):
    attachment = _trained(head, "off", dropout=0.5)
    assert attachment.model.config._attn_implementation != NAME
    assert not any("forward" in module.__dict__ for module in attachment.model.modules())
    assert not any(module._forward_pre_hooks for module in attachment.model.modules())
    with fast_training(attachment.model, "off"):
        assert all(delta.projection.draw is None for delta in attachment.deltas.values())


@pytest.mark.parametrize(("fast", "lean"), [("auto", True), ("off", False)])
def test_a_run_hears_the_switch(lorakit_cli, tmp_path, monkeypatch, fast, lean):
    """From the recipe to the model, the loop and the loss."""
    formed = []
    seen = []

    def without_logits(*args):
        formed.append(True)
        return head_loss(*args)

    def begun(model, how):
        seen.append((how, any("forward" in module.__dict__ for module in model.modules())))
        return fast_training(model, how)

    monkeypatch.setattr(losses, "head_loss", without_logits)
    monkeypatch.setattr(loop, "fast_training", begun)
    small = ["data.limit={train: 16, validation: 4}", "train.max_steps=1", "train.warmup=0"]
    run = ["train", "quickstart_generate", *small, f"train.fast={fast}", "--runs", tmp_path]
    done = lorakit_cli(*run)
    assert done.code == 0
    assert bool(formed) == lean
    assert seen == [(fast, lean)]


def test_only_off_is_another_run():
    folders = [
        folder_of(load_recipe("quickstart", overrides), Path())
        for overrides in ([], ["train.fast=auto"], ["train.fast=off"])
    ]
    assert folders[0] == folders[1] != folders[2]


def test_every_trick_says_its_gain_and_its_reference():
    folder = Path(loop.__file__).parents[1] / "fast"
    for file in folder.glob("*.py"):
        if file.stem in ("__init__", "_forward", "onednn", "free_memory"):
            continue
        said = file.read_text(encoding="utf-8").split('"""')[1]
        assert "Gain: " in said, file
        assert "Plain reference:" in said, file
