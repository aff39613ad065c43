"""A tokenizer without the tokens that a task needs is said to lack them, before anything is
computed."""

from __future__ import annotations

import pytest

from lorakit.batches import encode, encode_prompts, refuse_no_padding
from lorakit.errors import DataError, ModelError
from lorakit.tasks import Data, Example, Head

NO_END, NO_MARKS = ("eos_token",), ("eos_token", "pad_token")


@pytest.fixture
def without(tokenizer):
    def make(*names):
        made = tokenizer()
        for name in names:
            setattr(made, name, None)
        return made

    return make


def test_a_text_to_learn_needs_an_end(without):
    example = Example("a", "w1 w2", target="w3")
    assert encode([example], without(), Head.CAUSAL, Data())[0].inputs["input_ids"][-1] == 1
    with pytest.raises(ModelError, match="eos_token"):
        encode([example], without(*NO_END), Head.CAUSAL, Data())


def test_a_prompt_that_ends_in_the_end_token_needs_one(without):
    with pytest.raises(ModelError, match="eos_token"):
        encode_prompts([Example("a", "w1", eos=True)], without(*NO_END), 9)
    assert encode_prompts([Example("a", "w1")], without(*NO_END), 9)[0].length == 1


def test_batches_need_a_token_to_fill_them(without):
    refuse_no_padding(without(*NO_END))
    refuse_no_padding(without("pad_token"))
    with pytest.raises(ModelError, match="pad_token"):
        refuse_no_padding(without(*NO_MARKS))


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_an_empty_prompt_is_named(tokenizer, text):
    examples = [Example("one", "w1"), Example("two", text, where="rows.csv:3")]
    with pytest.raises(DataError, match=r"two \(rows\.csv:3\)"):
        encode_prompts(examples, tokenizer(), 9)
