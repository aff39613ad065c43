"""Examples to token ids and padded tensors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lorakit.batches import (
    IGNORE,
    Encoded,
    collate,
    encode,
    encode_prompts,
    lengths_of,
    refuse_too_long,
    width_of,
)
from lorakit.errors import DataError, ModelError
from lorakit.files.bad_rows import Cause, counting_dropped
from lorakit.tasks import Data, Example, Head, Turn

DATA = Data(max_length=8)


def _words(*numbers: int) -> str:
    return " ".join(f"w{n}" for n in numbers)


def test_a_text_and_a_label(tokenizer):
    found = encode([Example("a", _words(0, 1), target=1)], tokenizer(), Head.CLASSIFICATION, DATA)[
        0
    ]
    assert (found.id, found.inputs["input_ids"], found.target, found.length, found.trained) == (
        "a",
        [4, 5],
        1,
        2,
        1,
    )


def test_a_pair_is_one_sequence(tokenizer):
    examples = [Example("a", _words(0), _words(1, 2), 0), Example("b", _words(3), _words(4), 1)]
    found = encode(examples, tokenizer(), Head.CLASSIFICATION, DATA)
    assert [e.inputs["input_ids"] for e in found] == [[4, 5, 6], [7, 8]]


def test_a_long_text_is_cut_on_the_right_and_counted(tokenizer, caplog):
    with caplog.at_level("INFO"):
        found = encode(
            [Example("a", _words(*range(20)), target=0)], tokenizer(), Head.CLASSIFICATION, DATA
        )[0]
    assert found.inputs["input_ids"] == [4, 5, 6, 7, 8, 9, 10, 11]
    assert "1 of 1 examples reach 8 tokens" in caplog.text


def test_a_completion_ends_in_the_end_token_and_the_prompt_is_not_trained(tokenizer):
    found = encode(
        [Example("a", _words(0, 1), target=_words(2, 3))], tokenizer(), Head.CAUSAL, DATA
    )[0]
    assert found.inputs == {"input_ids": [4, 5, 6, 7, 1], "attention_mask": [1] * 5}
    assert found.trains == [IGNORE, IGNORE, 6, 7, 1]
    assert found.trained == 3


def test_a_completion_is_cut_and_not_the_prompt(tokenizer):
    found = encode(
        [Example("a", _words(0, 1), target=_words(*range(2, 30)))], tokenizer(), Head.CAUSAL, DATA
    )[0]
    assert found.inputs["input_ids"] == [4, 5, 6, 7, 8, 9, 10, 11]
    assert found.trains == [IGNORE, IGNORE, 6, 7, 8, 9, 10, 11]
    assert found.trained == 6


@pytest.mark.parametrize(
    ("prompt", "said"),
    [(_words(*range(8)), r"its prompt fills all 8 tokens \(data\.max_length\)"), ("", "is empty")],
)
def test_no_token_to_train_on(tokenizer, prompt, said):
    with pytest.raises(DataError, match=f"example a has no token to train on: .*{said}"):
        encode([Example("a", prompt, target=_words(0))], tokenizer(), Head.CAUSAL, DATA)


def test_a_prompt_to_generate_from_is_never_cut(tokenizer):
    examples = [Example("a", _words(0, 1, 2))]
    assert encode_prompts(examples, tokenizer(), 3)[0].inputs["input_ids"] == [4, 5, 6]
    with pytest.raises(DataError, match=r"example a .* 3 .* 2"):
        encode_prompts(examples, tokenizer(), 2)


ITEMS = [
    Encoded("a", {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1]}, 1),
    Encoded("b", {"input_ids": [8], "attention_mask": [1]}, 0),
]


@pytest.mark.parametrize(
    ("side", "width", "ids", "mask"),
    [
        ("right", None, [[5, 6, 7], [8, 9, 9]], [[1, 1, 1], [1, 0, 0]]),
        ("left", None, [[5, 6, 7], [9, 9, 8]], [[1, 1, 1], [0, 0, 1]]),
        ("right", 4, [[5, 6, 7, 9], [8, 9, 9, 9]], [[1, 1, 1, 0], [1, 0, 0, 0]]),
    ],
)
def test_padding(side, width, ids, mask):
    batch = collate(ITEMS, Head.CLASSIFICATION, pad_id=9, width=width, side=side)
    assert batch["input_ids"].tolist() == ids
    assert batch["attention_mask"].tolist() == mask


@pytest.mark.parametrize(
    ("head", "kind"), [(Head.CLASSIFICATION, "torch.int64"), (Head.REGRESSION, "torch.float32")]
)
def test_labels(head, kind):
    labels = collate(ITEMS, head, 0)["labels"]
    assert labels.tolist() == [1, 0]
    assert str(labels.dtype) == kind


def test_labels_of_a_causal_model_stand_where_their_tokens_stand():
    """If the end token is the padding token too, it is trained only where it ends a text."""
    items = [
        Encoded(
            "a", {"input_ids": [5, 6, 1], "attention_mask": [1, 1, 1]}, None, [IGNORE, IGNORE, 1]
        ),
        Encoded("b", {"input_ids": [8, 1], "attention_mask": [1, 1]}, None, [IGNORE, 1]),
    ]
    assert collate(items, Head.CAUSAL, pad_id=1)["labels"].tolist() == [
        [IGNORE, IGNORE, 1],
        [IGNORE, 1, IGNORE],
    ]


@pytest.mark.parametrize(
    ("config", "tokens", "refused"),
    [(40, 10**30, False), (7, 10**30, True), (40, 7, True), (None, 10**30, False)],
)
def test_more_tokens_than_the_model_has_positions(config, tokens, refused):
    model, words = (
        SimpleNamespace(max_position_embeddings=config),
        SimpleNamespace(model_max_length=tokens),
    )
    if not refused:
        refuse_too_long(DATA, words, model)
        return
    with pytest.raises(ModelError, match=r"data\.max_length 8 is more than the 7 tokens"):
        refuse_too_long(DATA, words, model)


@pytest.mark.parametrize(
    ("lengths", "most", "width"),
    [([3, 5], 80, 8), ([8], 80, 8), ([9], 80, 12), ([32], 80, 32), ([33], 80, 40), ([33], 36, 36)],
)
def test_widths_are_rounded_up_within_the_longest(lengths, most, width):
    items = [Encoded("", {"input_ids": [1] * n}, 0, []) for n in lengths]
    assert width_of([item.length for item in items], most) == width


LONG = [
    Example("a", _words(0), target=_words(1), where="f:1"),
    Example("b", _words(0, 1, 2, 3), target=_words(1, 2, 3), where="f:2"),
    Example("c", _words(0, 1, 2, 3, 4), target=_words(1, 2, 3), where="f:3"),
]


def test_examples_that_are_too_long(tokenizer, caplog):
    def ids(**settings):
        data = Data(max_length=7, **settings)
        return [(e.id, e.length) for e in encode(LONG, tokenizer(), Head.CAUSAL, data)]

    whole = encode(LONG, tokenizer(), Head.CAUSAL, Data(max_length=64))
    full = [(e.id, e.length) for e in whole]
    assert lengths_of(LONG, tokenizer(), Head.CAUSAL) == [length for _, length in full]
    assert ids() == [(id, min(length, 7)) for id, length in full]
    fitting = [(id, length) for id, length in full if length <= 7]
    assert 0 < len(fitting) < 3
    with counting_dropped() as dropped:
        assert ids(too_long="drop") == fitting
    assert dropped == {Cause.TOO_LONG: 3 - len(fitting)}
    with pytest.raises(DataError, match=r"2 of 3 rows.*2 too long(.|\n)*f:2(.|\n)*f:3"):
        ids(too_long="error")
    with pytest.raises(DataError, match="all 2 examples"):
        encode(LONG[1:], tokenizer(), Head.CAUSAL, Data(max_length=7, too_long="drop"))


def test_texts_to_classify_that_are_too_long_or_empty(tokenizer):
    rows = [
        Example("a", _words(0), target=0, where="f:1"),
        Example("b", _words(*range(9)), target=1, where="f:2"),
        Example("c", " ", target=1, where="f:3"),
    ]

    def ids(**settings):
        data = Data(max_length=6, **settings)
        return [e.id for e in encode(rows, tokenizer(), Head.CLASSIFICATION, data)]

    assert ids() == ["a", "b", "c"]
    assert ids(too_long="drop") == ["a", "c"]
    assert ids(empty="drop") == ["a", "b"]
    with pytest.raises(DataError, match=r"b \(f:2\) has \d+ tokens, and data\.max_length is 6"):
        ids(too_long="error")
    with pytest.raises(DataError, match=r"c \(f:3\): its text is empty"):
        ids(empty="error")


def test_an_answer_that_is_cut_off_entirely(tokenizer, caplog):
    rows = [LONG[0], Example("d", _words(*range(8)), target=_words(1), where="f:4")]
    with pytest.raises(DataError, match=r"d \(f:4\) has no token to train on.*7 tokens"):
        encode(rows, tokenizer(), Head.CAUSAL, Data(max_length=7))
    found = encode(rows, tokenizer(), Head.CAUSAL, Data(max_length=7, too_long="drop"))
    assert [e.id for e in found] == ["a"]


def test_prompts_without_room_are_all_listed_with_the_cause(tokenizer):
    with pytest.raises(DataError) as caught:
        encode_prompts(LONG, tokenizer(), 2, room_is="data.max_length 6 - 4")
    message = str(caught.value)
    assert message.startswith("2 of 3 rows")
    assert "room for 2 (data.max_length 6 - 4)" in message
    kept = encode_prompts(LONG, tokenizer(), 2, frozenset({Cause.TOO_LONG}))
    assert [e.id for e in kept] == ["a"]


HALF = "w1 \ud83d"
ASKED = (Turn("user", "w1"),)


@pytest.mark.parametrize(
    "example",
    [
        Example("a", HALF, target="w1"),
        Example("a", "w1", target=HALF),
        Example("a", "w1", target="w1", turns=(Turn("user", HALF),)),
        Example("a", "w1", target="w1", turns=ASKED, tools=f'[{{"name": "{HALF}"}}]'),
        Example(
            "a",
            "w1",
            target="w1",
            turns=ASKED,
            answer=Turn("assistant", "w1", f'{{"thinking": "{HALF}"}}'),
        ),
    ],
    ids=["prompt", "answer", "turn", "tools", "thoughts"],
)
def test_half_of_a_character_is_named(tokenizer, example):
    made = tokenizer()
    made.chat_template = (
        "{{ tools }}{% for m in messages %}{{ m.thinking }} {{ m.content }}{% endfor %}"
    )
    with pytest.raises(DataError, match=r"\\ud83d"):
        encode([example], made, Head.CAUSAL, DATA)
    with pytest.raises(DataError, match=r"\\ud83d"):
        lengths_of([example], made, Head.CAUSAL)
