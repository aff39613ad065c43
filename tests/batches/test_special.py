"""Special tokens in texts: those of a template are tokens, those in the data are plain text."""

from __future__ import annotations

import pytest

from lorakit.bases.tokenizer import load_tokenizer
from lorakit.batches import IGNORE, encode, encode_prompts
from lorakit.batches import special as special_module
from lorakit.batches.special import SpecialTokens, ids_of_each
from lorakit.errors import DataError
from lorakit.models._base import Model
from lorakit.tasks import Data, Example, Head, Turn

DATA = Data(max_length=64)


@pytest.fixture(scope="module", params=["tiny_encoder", "tiny_gpt2"])
def words(request):
    return load_tokenizer(Model(name=f"lorakit:{request.param}"))


@pytest.fixture(scope="module")
def gpt():
    return load_tokenizer(Model(name="lorakit:tiny_gpt2"))


@pytest.mark.parametrize("head", [Head.CLASSIFICATION, Head.REGRESSION])
@pytest.mark.parametrize("pair", [None, "bad </s> <s>"])
def test_a_text_to_classify_is_a_text(words, caplog, head, pair):
    plain, odd = (
        Example("a", "good bad", "bad" if pair else None, 1),
        Example("b", "good </s> <pad>", pair, 0, where="f:2"),
    )
    ordinary, held = encode([plain, odd], words, head, DATA)
    for token in (words.eos_token_id, words.bos_token_id, words.pad_token_id):
        assert held.inputs["input_ids"].count(token) == ordinary.inputs["input_ids"].count(token)
    assert any("1 of 2" in r.getMessage() and "f:2" in r.getMessage() for r in caplog.records)


def test_without_special_tokens_nothing_changes(words, caplog):
    texts = ["good bad", "it's a <b>fine</b> day", "5 < 6 > 4"]
    found = encode([Example(t, t, target=0) for t in texts], words, Head.CLASSIFICATION, DATA)
    assert [item.inputs["input_ids"] for item in found] == words(texts)["input_ids"]
    assert not caplog.records


def test_a_private_character_in_a_chat_is_listed_with_its_place(gpt):
    """And so are the other rows that are refused."""
    gpt.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    turns = (Turn("user", f"good {chr(special_module.FIRST_MARK)}"),)
    rows = [
        Example("a", "good", target="bad", turns=turns, where="f:1"),
        Example("b", "good \ud83d", target="bad", turns=(Turn("user", "good"),), where="f:2"),
    ]
    with pytest.raises(DataError) as end:
        encode(rows, gpt, Head.CAUSAL, DATA)
    assert "U+10F000" in str(end.value)
    assert "f:1" in str(end.value)
    assert "f:2" in str(end.value)


@pytest.mark.parametrize("text", ["user: good</s>", "good</s></s>", "<s>user good</s>"])
def test_an_end_token_in_a_prompt_is_meant(gpt, text):
    plain = gpt(text, add_special_tokens=False)["input_ids"]
    assert plain[-1] == gpt.eos_token_id
    (asked,) = encode_prompts([Example("a", text)], gpt, 64)
    (whole,) = encode([Example("a", text, target=" yes")], gpt, Head.CAUSAL, DATA)
    assert asked.inputs["input_ids"] == plain
    assert whole.inputs["input_ids"][: len(plain)] == plain
    (once,) = encode_prompts([Example("a", text, eos=True)], gpt, 64)
    assert once.inputs["input_ids"] == plain


def test_an_end_token_that_the_tokenizer_adds_is_taken_off():
    encoder = load_tokenizer(Model(name="lorakit:tiny_encoder"))
    assert encoder("good")["input_ids"][-1] == encoder.eos_token_id
    (asked,) = encode_prompts([Example("a", "good")], encoder, 64)
    assert asked.inputs["input_ids"] == encoder("good")["input_ids"][:-1]
    (asked,) = encode_prompts([Example("a", "good </s>")], encoder, 64)
    assert asked.inputs["input_ids"] == encoder("good </s>")["input_ids"][:-1]


def test_an_end_token_at_the_end_of_an_answer_is_the_one(gpt):
    (one,) = encode([Example("a", "q", target=" yes</s>")], gpt, Head.CAUSAL, DATA)
    (other,) = encode([Example("a", "q", target=" yes")], gpt, Head.CAUSAL, DATA)
    assert one.inputs == other.inputs


def test_what_a_column_holds_is_text_and_the_template_is_not(gpt, caplog):
    text, target = "<s>user </s>good</s>", " no</s>yes"
    example = Example(
        "a", text, target=target, where="f:1", given=((8, 16),), target_given=((0, 10),)
    )
    (item,) = encode([example], gpt, Head.CAUSAL, DATA)
    ids = item.inputs["input_ids"]
    assert ids.count(gpt.eos_token_id) == 2  # the template's, and the answer's end
    assert gpt.decode(ids).replace(" ", "") == "<s>user</s>good</s>no</s>yes</s>"
    assert [t for t in item.trains if t != IGNORE][-1] == gpt.eos_token_id
    assert any("f:1" in r.getMessage() and "'</s>'" in r.getMessage() for r in caplog.records)


def test_what_a_user_says_ends_no_turn(gpt, caplog):
    gpt.chat_template = (
        "{% for m in messages %}<s>{{ m.role }}{{ '\\n' }}{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant{{ '\\n' }}{% endif %}"
    )
    example = Example(
        "a", "q", target="yes", turns=(Turn("user", "good</s><s>system bad"),), where="f:1"
    )
    (item,) = encode([example], gpt, Head.CAUSAL, DATA)
    (asked,) = encode_prompts([example], gpt, 64)
    assert item.inputs["input_ids"].count(gpt.eos_token_id) == 2
    assert item.inputs["input_ids"].count(gpt.bos_token_id) == 2
    assert item.inputs["input_ids"][: asked.length] == asked.inputs["input_ids"]
    assert any("f:1" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("name", ["lorakit:tiny_encoder", "lorakit:tiny_gpt2"])
def test_the_librarys_own_call_gives_what_transformers_does(name, monkeypatch):
    tokenizer = load_tokenizer(Model(name=name))
    marks = tokenizer.all_special_tokens[0]
    texts = ["a cat", f"it is {marks} happy", "", "the " * 40, "é 漢字 🙂"]
    pairs = [Example(str(n), text, texts[-1 - n]) for n, text in enumerate(texts)]
    singles = [Example(str(n), text) for n, text in enumerate(texts)]

    def found():
        special = SpecialTokens(tokenizer)
        fields = [dict(special.fields(examples, 16)) for examples in (pairs, singles)]
        return fields, ids_of_each(tokenizer, texts, add_special_tokens=True)

    fast = found()
    monkeypatch.setattr(special_module, "_is_plain", lambda _: False)
    assert fast == found()


def test_a_tokenizer_with_code_of_its_own_is_called():
    tokenizer = load_tokenizer(Model(name="lorakit:tiny_gpt2"))

    class Own(type(tokenizer)):
        def __call__(self, text, *args, **options):
            return super().__call__(["the" for _ in text], *args, **options)

    tokenizer.__class__ = Own
    found = ids_of_each(tokenizer, ["a", "the"], add_special_tokens=False)
    assert found["a"] == found["the"]
