"""log p of a choice after a prompt, compared with one forward pass per sequence."""

from __future__ import annotations

import pytest
import torch

from lorakit.evaluation.likelihood import log_likelihoods
from tests.encoded import encoded_rows
from tests.tiers import unit_or_slow

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [20, 21]]


@torch.no_grad()
def _plain(model, prompt: list[int], choice: list[int]) -> float:
    ids = torch.tensor([prompt + choice])
    log_p = model(input_ids=ids).logits[0].log_softmax(-1)
    return sum(float(log_p[len(prompt) - 1 + i, token]) for i, token in enumerate(choice))


@pytest.mark.parametrize("size", [1, 3, 64])
@pytest.mark.parametrize(
    "choices", [[[3], [4], [5]], [[3, 4], [3, 5], [6], [7, 8, 9]], [[30, 31], [31, 30]]], ids=str
)
@pytest.mark.parametrize(
    "family", unit_or_slow(["gpt2", "llama", "bloom", "opt"], ["llama", "bloom"])
)
def test_as_one_by_one(tiny, family, choices, size):
    model = tiny(family, "CausalLM").model
    items = encoded_rows(PROMPTS)
    wanted = [[_plain(model, prompt, choice) for choice in choices] for prompt in PROMPTS]
    found = log_likelihoods(model, items, choices, 0, size)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-5, atol=1e-5)


def test_choices_of_one_token_share_a_forward_pass(tiny):
    model = tiny("gpt2", "CausalLM").model
    rows = []
    model.register_forward_pre_hook(
        lambda _, __, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    )
    items = encoded_rows(PROMPTS)
    log_likelihoods(model, items, [[3], [4], [5]], 0, 64)
    rows.clear()  # the first call tries whether padding is seen
    log_likelihoods(model, items, [[3], [4], [5]], 0, 64)
    assert rows == [len(PROMPTS)]
