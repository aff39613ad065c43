"""The look at data before the first step: what it leaves alone, and what does not change it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lorakit.methods import methods
from tests.attaching import attach

LOOKERS: dict[str, dict[str, Any]] = {
    "eva": {"name": "lora", "r": 4, "init": {"name": "eva", "batches": 2}},
    "corda": {"name": "lora", "r": 4, "init": {"name": "corda", "batches": 2}},
    "lora_ga": {"name": "lora", "r": 4, "init": {"name": "lora_ga", "batches": 2}},
    "rosa": {"name": "rosa", "r": 4, "batches": 2},
}


def made(tiny, fields, family: str = "roberta", **changes) -> tuple[Any, Any]:
    model = tiny(family, **changes)
    torch.manual_seed(0)
    return model, attach(methods.get(fields["name"]).model_validate(fields), model)


@pytest.mark.parametrize("looker", LOOKERS)
def test_it_leaves_no_gradient_for_the_first_step(tiny, looker):
    model, attachment = made(tiny, LOOKERS[looker])
    trained = set(attachment.trained())
    attachment.see([model.loss, model.loss])
    assert all(p.grad is None for p in model.model.parameters())
    assert set(attachment.trained()) == trained
