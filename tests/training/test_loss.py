"""The loss as a sum: what it is, and that any cut of a batch adds up to it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lorakit.batches import IGNORE, Encoded, collate
from lorakit.methods.reparam.lora import LoRA
from lorakit.nn.tokens import add_rows, train_rows
from lorakit.tasks import Head
from lorakit.training.loss import can_be_lean, loss_sum
from lorakit.training.plan import own_part, share
from tests.attaching import attach
from tests.encoded import encoded
from tests.rounding import assert_near


class _Fixed(nn.Module):
    def __init__(self, logits) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, **_inputs):
        return SimpleNamespace(logits=self.logits)


LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 2, 1, 1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_classification_with_label_smoothing(smoothing):
    """(1 - e) * NLL + e * mean over the classes of -log p."""
    logp = LOGITS.log_softmax(-1)
    nll = -logp[range(4), LABELS]
    wanted = ((1 - smoothing) * nll + smoothing * -logp.mean(-1)).sum()
    loss = loss_sum(_Fixed(LOGITS), {"labels": LABELS}, Head.CLASSIFICATION, smoothing)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(loss, F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing) * 4)


def test_regression_is_the_squared_error():
    values, labels = torch.tensor([[1.0], [2.5], [-1.0]]), torch.tensor([0.0, 2.0, 1.0])
    loss = loss_sum(_Fixed(values), {"labels": labels}, Head.REGRESSION)
    torch.testing.assert_close(loss.detach(), torch.tensor(1 + 0.25 + 4))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_causal_is_over_the_trained_tokens_one_step_ahead(smoothing):
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[IGNORE, IGNORE, 3, 4, 1], [IGNORE, 5, 1, IGNORE, IGNORE]])
    wanted = torch.zeros(())
    for row in range(2):
        for at in range(1, 5):
            if labels[row, at] != IGNORE:
                logp = logits[row, at - 1].log_softmax(-1)
                wanted += (1 - smoothing) * -logp[labels[row, at]] + smoothing * -logp.mean()
    torch.testing.assert_close(
        loss_sum(_Fixed(logits), {"labels": labels}, Head.CAUSAL, smoothing), wanted
    )


def test_transformers_has_the_same_mean(tiny):
    """Of a batch whose labels are one number per row."""
    model = tiny("gpt2")
    labels = torch.tensor([0, 1])
    with torch.no_grad():
        wanted = model.model(**model.inputs, labels=labels).loss
        found = loss_sum(model.model, {**model.inputs, "labels": labels}, Head.CLASSIFICATION)
    torch.testing.assert_close(found / 2, wanted)


def test_the_loss_is_float32_whatever_the_logits_are():
    loss = loss_sum(_Fixed(LOGITS.bfloat16()), {"labels": LABELS}, Head.CLASSIFICATION)
    assert loss.dtype is torch.float32
    assert loss.ndim == 0


def _examples(head: Head, n: int = 11) -> list[Encoded]:
    """Of lengths three to eight."""
    drawn = torch.Generator().manual_seed(0)
    found = []
    for i in range(n):
        ids = torch.randint(3, 64, (3 + i % 6,), generator=drawn).tolist()
        target = {
            Head.CLASSIFICATION: i % 2,
            Head.REGRESSION: i / 5,
            Head.MULTILABEL: (i % 2, i % 3 % 2),
            Head.TOKENS: (i % 2, 1),
            Head.SPANS: (i % 3, 2),
            Head.CAUSAL: None,
        }[head]
        prompt = 1 + i % 2 if head is Head.CAUSAL else None
        one = encoded(i, ids, target, prompt)  # type: ignore[arg-type]
        found.append(replace(one, places=(0, 2)) if head is Head.TOKENS else one)
    return found


MODELS = {
    Head.CLASSIFICATION: ("roberta", "SequenceClassification", {}),
    Head.REGRESSION: ("roberta", "SequenceClassification", {"num_labels": 1}),
    Head.MULTILABEL: ("roberta", "SequenceClassification", {}),
    Head.TOKENS: ("roberta", "TokenClassification", {}),
    Head.SPANS: ("roberta", "QuestionAnswering", {}),
    Head.CAUSAL: ("gpt2", "CausalLM", {}),
}


@pytest.mark.parametrize(
    ("processes", "micro"), [(1, 3), (1, 1), (2, None), (4, 1), (4, 3), (3, 2)]
)
@pytest.mark.parametrize("head", Head)
def test_any_cut_of_a_batch_adds_up_to_the_same_gradient(tiny, head, processes, micro):
    """Twelve at a time, of which there are eleven here: the last batch of an epoch."""
    family, kind, changes = MODELS[head]
    model = tiny(family, kind, **changes)
    trained = attach(LoRA(), model).trained()
    examples = _examples(head)
    whole = sum(e.trained for e in examples)

    def gradients(parts):
        model.model.zero_grad()
        for items in parts:
            if items:
                batch = collate(items, head, pad_id=0)
                (loss_sum(model.model, batch, head, 0.1) / whole).backward()
        return {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}

    shares = share(12, micro, processes)
    parts = [part for rank in range(processes) for part in own_part(range(11), shares, rank)]
    cut = gradients([[examples[i] for i in part] for part in parts])
    straight = gradients([examples])
    assert any(g.abs().max() > 1e-4 for g in straight.values())
    assert_near(cut, straight)


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "bloom", "gpt_neox", "phi3"])
def test_positions_without_a_trained_token_ahead_cost_no_logits_and_change_nothing(tiny, family):
    model = tiny(family, head="CausalLM")
    items = [
        encoded("a", [5, 6, 7, 8, 9], prompt=3),
        encoded("b", [7, 8, 5, 6], prompt=2),
        encoded("c", [9, 5, 6, 7, 8, 9], prompt=5),
    ]
    batch = collate(items, Head.CAUSAL, 0)
    found = loss_sum(model.model, batch, Head.CAUSAL)
    labels = batch.pop("labels")
    logits = model.model(**batch).logits
    wanted = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="sum"
    )
    torch.testing.assert_close(found, wanted)
    seen = []
    model.model.get_output_embeddings().register_forward_hook(
        lambda _m, inputs, _out: seen.append(inputs[0].shape[1])
    )
    loss_sum(model.model, {**batch, "labels": labels}, Head.CAUSAL)
    assert seen == [5], "the first trained token is the third, and the second predicts it"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "bloom", "gpt_neox", "phi3"])
def test_without_logits_it_is_the_same_loss(tiny, family, smoothing):
    model = tiny(family, head="CausalLM")
    attachment = attach(LoRA(), model)
    trained = attachment.trained()
    with torch.no_grad():
        for delta in attachment.deltas.values():
            delta.B.normal_()
    batch = collate(_examples(Head.CAUSAL), Head.CAUSAL, 0)
    assert can_be_lean(model.model, batch)
    losses = [
        loss_sum(model.model, batch, Head.CAUSAL, smoothing, lean=lean) for lean in (True, False)
    ]
    assert_near(*losses)
    gradients = [torch.autograd.grad(loss, list(trained.values())) for loss in losses]
    assert_near(*gradients)
    assert not model.model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_micro_batch_asks_the_device_for_nothing(tiny, family, lean, monkeypatch):
    """The meta device has no number to give: whatever reads one to go on, and so would wait for a
    GPU, is an error. transformers' own look at a mask, before its first layer, is left out here as
    it is while torch.compile traces."""
    monkeypatch.setattr("transformers.masking_utils.is_tracing", lambda *_: True)
    monkeypatch.setattr(
        torch, "is_autocast_enabled", lambda *_: False
    )  # which does not know the meta device
    model = tiny(family, head="CausalLM")
    attachment = attach(LoRA(dropout=0.1), model)
    batch = collate(_examples(Head.CAUSAL), Head.CAUSAL, 0)
    model.model.to("meta").train()
    batch |= {name: batch[name].to("meta") for name in ("input_ids", "attention_mask")}
    with pytest.raises((NotImplementedError, RuntimeError)):
        loss_sum(
            model.model, {**batch, "labels": batch["labels"].to("meta")}, Head.CAUSAL, lean=lean
        )
    assert batch["labels"].device.type == "cpu"
    loss_sum(model.model, batch, Head.CAUSAL, 0.1, lean=lean).backward()
    assert all(
        p.grad is not None and p.grad.device.type == "meta" for p in attachment.trained().values()
    )


def test_what_is_done_to_logits_is_done_for_the_loss_too(tiny, caplog):
    """Gemma 2 caps its logits; a head that trains, or has a delta, is not frozen."""
    model = tiny("llama", head="CausalLM")
    batch = collate(_examples(Head.CAUSAL), Head.CAUSAL, 0)
    for parameter in model.model.parameters():
        parameter.requires_grad_(False)
    assert can_be_lean(model.model, batch)
    output = model.model.get_output_embeddings()
    output.weight.requires_grad_(True)
    assert not can_be_lean(model.model, batch)
    output.weight.requires_grad_(False)
    forward = model.model.forward

    def capped(**inputs):
        outputs = forward(**inputs)
        outputs.logits = torch.tanh(outputs.logits / 2) * 2
        return outputs

    model.model.forward = capped
    with torch.no_grad():
        output.weight.mul_(50)
    with caplog.at_level("INFO", logger="lorakit"):
        assert not can_be_lean(model.model, batch)
    assert "changes its logits" in caplog.text
    assert not can_be_lean(_Fixed(LOGITS), batch)


@pytest.mark.parametrize("how", ["added", "trained"])
def test_rows_of_new_tokens_are_in_the_loss(tiny, how):
    """Tied layers share the rows, and the output layer has them as a hook alone."""
    model = tiny("gpt2", head="CausalLM").model
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    output = model.get_output_embeddings()
    assert output.weight is model.get_input_embeddings().weight
    batch = collate(_examples(Head.CAUSAL), Head.CAUSAL, 0)
    assert can_be_lean(model, batch)
    if how == "added":
        add_rows(model, [output.weight.shape[0]])
    else:
        train_rows(model, {"transformer.wte": [5, 6]})
    assert not can_be_lean(model, batch)
