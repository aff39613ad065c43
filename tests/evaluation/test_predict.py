"""Outputs do not depend on how the examples are batched, and come in the order of the examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lorakit.batches import Encoded
from lorakit.evaluation.predict import (
    Generated,
    GenerationSettings,
    in_order,
    predict_logits,
    text_batches,
)
from lorakit.recipe.evaluate import Decode
from lorakit.tasks import Head
from tests.encoded import encoded


def _items(n: int = 11) -> list[Encoded]:
    """Of two to nine tokens, in no order of length."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for i in range(n):
        ids = torch.randint(4, 64, (2 + (i * 5) % 8,), generator=generator).tolist()
        found.append(encoded(i, ids))
    return found


def _texts(model: Any, items: list[Encoded], *how: Any) -> list[Generated]:
    return in_order(text_batches(model, items, *how), len(items))


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_logits_are_those_of_each_example_alone(tiny, family, batch_size):
    model, items = tiny(family).model, _items()
    with torch.no_grad():
        alone = [
            model(input_ids=torch.tensor([item.inputs["input_ids"]])).logits[0] for item in items
        ]
    found = predict_logits(model, items, Head.CLASSIFICATION, 0, batch_size)
    torch.testing.assert_close(torch.tensor(found), torch.stack(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_generated_texts_are_those_of_each_example_alone(tiny, tokenizer, family, batch_size):
    """Padding stands on the left, and is not looked at; a text that reaches five tokens is cut."""
    model, items, words = tiny(family, "CausalLM").model, _items(), tokenizer()
    alone = []
    for item in items:
        ids = torch.tensor([item.inputs["input_ids"]])
        for _ in range(5):
            with torch.no_grad():
                following = model(input_ids=ids).logits[0, -1].argmax()
            ids = torch.cat([ids, following.view(1, 1)], 1)
            if following in (1, 9):
                break
        ended = ids[0, -1] in (1, 9)
        written = ids[0, item.length : -1 if ended else None]
        alone.append((words.decode(written, skip_special_tokens=True), bool(ended)))
    found = _texts(
        model, items, words, GenerationSettings(Decode(max_new_tokens=5), batch_size, 0, (9,))
    )
    assert [(g.text, g.ended) for g in found] == alone
    assert len(set(alone)) > 5


def test_an_end_is_the_tokenizers_or_a_stop(tiny, tokenizer):
    model, items, words = tiny("llama", "CausalLM").model, _items(), tokenizer()
    settings = Decode(max_new_tokens=8)
    free, stopped = (
        _texts(model, items, words, GenerationSettings(settings, 4, 0, stops))
        for stops in ((), range(30, 50))
    )
    assert sum(g.ended for g in stopped) > sum(g.ended for g in free)
    assert all(long.text.startswith(short.text) for short, long in zip(stopped, free, strict=True))
    words.eos_token = None
    assert not any(g.ended for g in _texts(model, items, words, GenerationSettings(settings, 4)))


def test_what_is_drawn_depends_on_the_seed_alone(tiny, tokenizer):
    model, items, words = tiny("gpt2", "CausalLM").model, _items(), tokenizer()

    def texts(batch_size, seed):
        settings = Decode(max_new_tokens=6, sample=True)
        return _texts(model, items, words, GenerationSettings(settings, batch_size, seed))

    assert texts(2, 7) == texts(2, 7) == texts(5, 7) == texts(100, 7)
    assert texts(2, 7) != texts(2, 8)


def test_each_batch_is_handed_over_when_it_is_there(tiny, tokenizer):
    """Long prompts first."""
    model, items, seen = tiny("gpt2", "CausalLM").model, _items(), []
    found = _texts(
        model,
        items,
        tokenizer(),
        GenerationSettings(Decode(max_new_tokens=3, beams=2), 4),
        lambda numbers, outputs, of: seen.append((dict(zip(numbers, outputs, strict=True)), of)),
    )
    batches = [batch for batch, _ in seen]
    assert {of for _, of in seen} == {11}
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert {i: g for batch in batches for i, g in batch.items()} == dict(enumerate(found))
    lengths = [items[i].length for batch in batches for i in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_the_mode_of_the_model_is_given_back(tiny):
    model = tiny("bert").model
    for training in (True, False):
        model.train(training)
        predict_logits(model, _items(3), Head.CLASSIFICATION, 0, 2)
        assert model.training is training


def test_dropout_is_off(tiny):
    model = tiny("bert", hidden_dropout_prob=0.5).model.train()
    first, second = (predict_logits(model, _items(3), Head.CLASSIFICATION, 0, 2) for _ in range(2))
    assert first == second


def test_a_regression_gives_one_value(tiny):
    found = predict_logits(tiny("bert", num_labels=1).model, _items(3), Head.REGRESSION, 0, 2)
    assert [len(row) for row in found] == [1, 1, 1]


def test_logits_are_float32_numbers(tiny):
    found = predict_logits(
        tiny("bert", dtype=torch.bfloat16).model, _items(2), Head.CLASSIFICATION, 0, 2
    )
    assert all(isinstance(value, float) for row in found for value in row)


def test_no_examples_no_answers(tiny):
    assert predict_logits(tiny("bert").model, [], Head.CLASSIFICATION, 0, 4) == []
