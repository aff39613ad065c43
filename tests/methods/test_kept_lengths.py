"""What is computed once of W0 can be used in training, also where an evaluation computed it."""

from __future__ import annotations

import pytest
import torch

from tests.attaching import attach
from tests.conftest import small_method


@pytest.mark.parametrize("name", ["map", "dora"])
def test_an_evaluation_first_and_then_a_step(tiny, name):
    model = tiny("gpt2")
    attachment = attach(small_method(name), model)
    for delta in attachment.deltas.values():  # type: ignore[attr-defined]
        # as when the weights were laid out elsewhere for a generation
        delta._of_weight.clear()
    with torch.inference_mode():
        model.model(**model.inputs)
    before = attachment.state()
    model.step(attachment, steps=2)
    assert any(not torch.equal(before[key], value) for key, value in attachment.state().items())
