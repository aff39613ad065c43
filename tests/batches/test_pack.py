"""Packed examples get the logits, the loss and the gradients that they get in rows of their own."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from lorakit.batches import IGNORE, Encoded, collate, pack
from lorakit.errors import ModelError
from lorakit.methods.reparam.lora import LoRA
from lorakit.tasks import Head
from lorakit.training.loss import loss_sum
from lorakit.training.refuse import refuse_leaks
from tests.attaching import attach
from tests.encoded import encoded
from tests.rounding import assert_near

PACKABLE = "gpt2 gpt_neox llama mistral qwen2 qwen3 gemma gemma2 gemma3_text phi3".split()
ALL_IN_ONE = {"opt", "bloom"}
NO_SDPA = ("gemma2", "sdpa")


def _items(n: int = 7) -> list[Encoded]:
    drawn = torch.Generator().manual_seed(0)
    items = []
    for i in range(n):
        ids = torch.randint(3, 64, (3 + i % 5,), generator=drawn).tolist()
        items.append(encoded(i, ids, prompt=1 + i % 2))
    return items


def test_rows_hold_every_example_once_and_no_more_than_fits():
    items = _items()
    packed = pack(items, 12, pad_id=0)
    ids, places, labels = packed["input_ids"], packed["position_ids"], packed["labels"]
    assert ids.shape == places.shape == labels.shape
    assert ids.shape[1] <= 12
    assert len(ids) == 3, "37 tokens fit into no fewer, and no more are needed"
    assert (
        sum(item.length for item in items) <= ids.numel() < sum(item.length for item in items) + 12
    )
    found = []
    for row in range(len(ids)):
        starts = [*torch.nonzero(places[row] == 0).flatten().tolist(), ids.shape[1]]
        for a, b in itertools.pairwise(starts):
            found.append((ids[row, a:b].tolist(), labels[row, a:b].tolist()))
    wanted = [(item.inputs["input_ids"], list(item.trains)) for item in items]
    assert all(pair in found for pair in wanted)
    assert all(set(own) == {IGNORE} for pair in found if pair not in wanted for own in pair[1:])


def test_no_example_predicts_the_first_token_of_the_next():
    item = encoded("a", [5, 6, 7], prompt=0)
    assert pack([item, item], 8, 0)["labels"].tolist() == [[IGNORE, 6, 7, IGNORE, 6, 7]]


@pytest.mark.parametrize(
    ("family", "attention"),
    [
        (family, attention)
        for family in PACKABLE
        for attention in ("sdpa", "eager")
        if (family, attention) != NO_SDPA
    ],
)
def test_the_same_loss_and_gradients_as_in_rows_of_their_own(tiny, family, attention):
    model = tiny(family, "CausalLM", attention=attention)
    trained = attach(LoRA(), model).trained()
    refuse_leaks(model.model, 0)

    def found(batch):
        model.model.zero_grad()
        loss = loss_sum(model.model, batch, Head.CAUSAL, 0.1)
        loss.backward()
        return loss.detach(), {
            name: p.grad.clone() for name, p in trained.items() if p.grad is not None
        }

    alone, gradients = found(collate(_items(), Head.CAUSAL, 0))
    packed, gradients_packed = found(pack(_items(), 14, 0))
    assert_near(packed, alone)
    assert any(g.abs().max() > 1e-3 for g in gradients.values())
    assert_near(gradients_packed, gradients)


@pytest.mark.parametrize("family", sorted(ALL_IN_ONE))
def test_a_model_that_cannot_keep_them_apart_is_refused(tiny, family):
    with pytest.raises(ModelError, match=r"data\.packing: in \w+ForCausalLM"):
        refuse_leaks(tiny(family, "CausalLM").model, 0)


class _Uneven(torch.nn.Module):
    """Its logits are larger by 5 % in rows of more than five tokens."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.rows = torch.nn.Embedding(40, 8, dtype=dtype)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.rows

    def forward(self, input_ids: torch.Tensor, **_others: object) -> SimpleNamespace:
        factor = 1.05 if input_ids.shape[1] > 5 else 1.0
        return SimpleNamespace(logits=self.rows(input_ids) * factor)


def test_rounding_in_half_precision_is_no_leak():
    refuse_leaks(_Uneven(torch.bfloat16), 0)
    with pytest.raises(ModelError):
        refuse_leaks(_Uneven(torch.float32), 0)
