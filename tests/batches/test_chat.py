"""Chats by the tokenizer's template: exactly the tokens of the assistant's words are trained."""

from __future__ import annotations

import pytest

from lorakit.batches import IGNORE, encode, encode_prompts, end_of_turn, render
from lorakit.errors import DataError, ModelError
from lorakit.tasks import Data, Example, Head, Turn

CHATML = """{% for m in messages %}{{ '<im> ' + m.role + ' ' + m.content + ' <end> ' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<im> assistant ' }}{% endif %}"""
BRACKETS = """{{ '<s>' }}{% for m in messages %}
{%- if m.role == 'user' %}{{ '[ ' + m.content + ' ]' }}
{%- else %}{{ ' ' + m.content + ' </s>' }}{% endif %}
{%- endfor %}"""
LAST_THINKS = """{% for m in messages %}{{ '<im> ' + m.role + ' ' }}
{%- if loop.last and m.role == 'assistant' %}{{ 'w50 w51 ' }}{% endif %}
{{- m.content + ' <end> ' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<im> assistant ' }}{% endif %}"""
STRICT = """{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate') }}{% endif %}{{ m.content + ' ' }}{% endfor %}"""

TWO = (Turn("user", "w1 w2"), Turn("assistant", "w3 w4"), Turn("user", "w5"))


@pytest.fixture
def chatty(tokenizer):
    def make(template: str):
        made = tokenizer()
        made.add_special_tokens({"additional_special_tokens": ["<im>", "<end>"]})
        made.chat_template = template
        return made

    return make


def trained_words(tokenizer, example: Example, length: int = 64) -> list[str]:
    (found,) = encode([example], tokenizer, Head.CAUSAL, Data(max_length=length))
    assert found.trained == sum(label != IGNORE for label in found.trains)
    assert all(
        label in (IGNORE, token)
        for label, token in zip(found.trains, found.inputs["input_ids"], strict=True)
    )
    return tokenizer.convert_ids_to_tokens([label for label in found.trains if label != IGNORE])


def test_each_turn_of_the_assistant_is_trained_with_its_end(chatty):
    example = Example("a", "w5", target="w6 w7", turns=TWO)
    assert trained_words(chatty(CHATML), example) == ["w3", "w4", "<end>", "w6", "w7", "<end>"]
    assert trained_words(chatty(BRACKETS), example) == ["w3", "w4", "</s>", "w6", "w7", "</s>"]


def test_the_last_turn_alone(chatty):
    example = Example("a", "w5", target="w6 w7", turns=TWO, last_turn_only=True)
    assert trained_words(chatty(CHATML), example) == ["w6", "w7", "<end>"]
    assert trained_words(chatty(LAST_THINKS), example) == ["w50", "w51", "w6", "w7", "<end>"]


def test_a_template_that_rewrites_earlier_turns_is_refused(chatty):
    with pytest.raises(ModelError, match=r"turn 2 of a in another way.*task\.train_on=last"):
        trained_words(chatty(LAST_THINKS), Example("a", "w5", target="w6", turns=TWO))


def test_what_is_asked_is_how_the_trained_text_begins(chatty):
    example = Example("a", "w5", target="w6 w7", turns=TWO)
    for template in (CHATML, BRACKETS):
        tokenizer = chatty(template)
        (whole,) = encode([example], tokenizer, Head.CAUSAL, Data(max_length=64))
        (asked,) = encode_prompts([example], tokenizer, 64)
        size = asked.length
        assert whole.inputs["input_ids"][:size] == asked.inputs["input_ids"]
        assert tokenizer.decode(whole.trains[size:]).startswith("w6 w7")


def test_an_answer_ends_at_the_templates_mark(chatty):
    tokenizer = chatty(CHATML)
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer)) == ["<end>"]
    assert end_of_turn(chatty(BRACKETS)) == [tokenizer.eos_token_id]
    assert end_of_turn(chatty(STRICT)) == []


def test_what_is_refused(chatty, tokenizer):
    wrong = (*TWO, Turn("user", "w1"))
    with pytest.raises(DataError, match=r"example a \(f:3\).*roles must"):
        trained_words(chatty(STRICT), Example("a", "w5", target="w6", turns=wrong, where="f:3"))
    with pytest.raises(ModelError, match=r"no chat template.*model\.chat_template=FILE"):
        trained_words(tokenizer(), Example("a", "w5", target="w6", turns=TWO))
    with pytest.raises(DataError, match=r"a \(f:3\) .* 4"):
        trained_words(
            chatty(CHATML), Example("a", "w5", target="w6", turns=TWO[:1], where="f:3"), length=4
        )


NO_MARK = """{% for m in messages %}{{ m.role + ' : ' + m.content + ' ' }}{% endfor %}
{%- if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"""
THINK = """{% for m in messages %}{{ '<im> ' + m.role + ' ' }}
{%- if m.role == 'assistant' %}{{ m.content.split('w51')[-1] }}
{%- else %}{{ m.content }}{% endif %}{{ ' <end> ' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<im> assistant w50 ' }}{% endif %}"""
OTHER_NAME = """{% for m in messages %}{{ m.role + ' ' + m.content + ' </s> ' }}{% endfor %}
{%- if add_generation_prompt %}{{ 'w60 ' }}{% endif %}"""


def test_a_template_without_an_end_mark_gets_the_end_token_after_the_last_answer(chatty, caplog):
    tokenizer = chatty(NO_MARK)
    example = Example("a", "w5", target="w6 w7", turns=TWO)
    assert trained_words(tokenizer, example) == ["w3", "w4", "w6", "w7", "</s>"]
    assert any("end token '</s>' is added" in record.getMessage() for record in caplog.records)
    (asked,) = encode_prompts([example], tokenizer, 64)
    assert tokenizer.eos_token_id not in asked.inputs["input_ids"]


def test_a_template_with_an_end_mark_gets_nothing_more(chatty, caplog):
    trained_words(chatty(CHATML), Example("a", "w5", target="w6", turns=TWO))
    assert not caplog.records


@pytest.mark.parametrize("last", [False, True])
def test_an_opened_think_block_is_neither_trained_nor_asked(chatty, caplog, last):
    tokenizer = chatty(THINK)
    example = Example("a", "w5", target="w6 w7", turns=TWO, last_turn_only=last)
    assert trained_words(tokenizer, example) == [
        *([] if last else ["w3", "w4", "<end>"]),
        "w6",
        "w7",
        "<end>",
    ]
    assert any("'w50 '" in record.getMessage() for record in caplog.records)
    (whole,) = encode([example], tokenizer, Head.CAUSAL, Data(max_length=64))
    (asked,) = encode_prompts([example], tokenizer, 64)
    assert whole.inputs["input_ids"][: asked.length] == asked.inputs["input_ids"]
    assert tokenizer.convert_ids_to_tokens(asked.inputs["input_ids"][-2:])[0] == "<im>"


def test_an_answer_that_the_template_shortens_is_refused(chatty):
    example = Example("a", "w1", target="w50 w52 w51 w6", turns=TWO[:1], where="f:3")
    with pytest.raises(ModelError, match=r"a \(f:3\).*w50 w52.*model\.chat_template=FILE"):
        trained_words(chatty(THINK), example)


def test_a_prompt_that_no_answer_follows_is_named(chatty):
    with pytest.raises(ModelError, match=r"prefix 'w60 '.*model\.chat_template=FILE"):
        trained_words(chatty(OTHER_NAME), Example("a", "w1", target="w6", turns=TWO[:1]))


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1/0 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ 'x' * 10**11 }}",
        pytest.param("{{ 'x' * 10**9 }}", marks=pytest.mark.slow),
        "{% set ns = namespace(x='xx') %}"
        "{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% if %}",
        "{{ messages[7].role }}",
    ],
)
def test_a_template_that_fails_is_one_error(chatty, template):
    tokenizer = chatty(template)
    tokenizer.chat_template_file = "t.jinja"
    with pytest.raises(DataError, match=r"example a \(f:3\).*t\.jinja"):
        trained_words(tokenizer, Example("a", "w1", target="w6", turns=TWO[:1], where="f:3"))


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        pytest.param("{{ 9**(9**9) }}", marks=pytest.mark.slow),
    ],
)
def test_a_template_that_does_not_end_is_one_error(chatty, template, monkeypatch):
    monkeypatch.setenv("LORAKIT_TEMPLATE_SECONDS", "1")
    render._processes.clear()
    tokenizer = chatty(template)
    tokenizer.chat_template_file = "t.jinja"
    try:
        with pytest.raises(DataError, match=r"example a \(f:3\).*within 1 seconds.*t\.jinja"):
            trained_words(tokenizer, Example("a", "w1", target="w6", turns=TWO[:1], where="f:3"))
    finally:
        render._processes.clear()
    assert trained_words(chatty(CHATML), Example("a", "w1", target="w6", turns=TWO[:1])) == [
        "w6",
        "<end>",
    ]


SYSTEM = """{{ '<im> system w40 w41 <end> ' }}{% for m in messages %}
{{- '<im> ' + m.role + ' ' + m.content + ' <end> ' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<im> assistant ' }}{% endif %}"""


def test_a_prompt_without_room_names_what_the_template_writes(chatty):
    tokenizer = chatty(SYSTEM)
    example = Example("a", "w1 w2", target="w6", turns=(Turn("user", "w1 w2"),), where="f:3")
    (asked,) = encode_prompts([example], tokenizer, 64)
    with pytest.raises(DataError) as caught:
        encode_prompts([example], tokenizer, 4)
    message = str(caught.value)
    assert f"the chat template writes {asked.length - 2} of the prompt's tokens" in message
    assert "<im> system w40 w41 <end>" in message


TOOLS = '[{"type": "function", "function": {"name": "w9"}}]'
WITH_TOOLS = "{% for t in tools %}{{ t.function.name + ' ' }}{% endfor %}" + CHATML


@pytest.mark.parametrize("tools", ["", TOOLS])
def test_a_template_for_tools_writes_chats_with_tools(chatty, tools):
    tokenizer = chatty(CHATML)
    tokenizer.chat_template = {"default": CHATML, "tool_use": WITH_TOOLS}
    example = Example("a", "w1", target="w6", turns=TWO[:1], tools=tools)
    (asked,) = encode_prompts([example], tokenizer, 64)
    first = tokenizer.convert_ids_to_tokens(asked.inputs["input_ids"])[0]
    assert first == ("w9" if tools else "<im>")
    assert trained_words(tokenizer, example) == ["w6", "<end>"]


def test_templates_of_which_none_is_the_default_are_one_error(chatty):
    tokenizer = chatty(CHATML)
    tokenizer.chat_template = {"rag": CHATML, "tool_use": CHATML}
    with pytest.raises(DataError, match=r"rag, tool_use.*model\.chat_template=FILE"):
        trained_words(tokenizer, Example("a", "w1", target="w6", turns=TWO[:1]))
