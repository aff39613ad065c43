"""The logits of the last positions are those of all positions, cut."""

from __future__ import annotations

import pytest
import torch

from lorakit.nn.logits import last_logits

IDS = torch.randint(3, 30, (3, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", ["gpt2", "bloom"])
def test_they_are_the_last_of_all(tiny, family):
    model = tiny(family, head="CausalLM").model
    wanted = model(input_ids=IDS).logits[:, -4:]
    torch.testing.assert_close(last_logits(model, {"input_ids": IDS}, 4), wanted)
