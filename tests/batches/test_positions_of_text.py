"""Places in the text: the first token of a word, the tokens of a span, and windows."""

from __future__ import annotations

import pytest

from lorakit.bases.tokenizer import load_tokenizer
from lorakit.batches import IGNORE, NOWHERE, Encoded, collate, encode
from lorakit.batches.positions_of_text import first_tokens, tokens_of_span
from lorakit.errors import DataError
from lorakit.models import Model
from lorakit.tasks import Data, Example, Head


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(Model(name="lorakit:tiny_encoder"))


def test_the_first_token_of_each_word():
    # "un happy cat": three words; tokens: none, un, ha, ppy, " cat", none
    ends = [-1, 2, 5, 8, 12, -1]
    assert first_tokens([(0, 2), (3, 8), (9, 12)], ends) == (1, 2, 4)
    # the third was cut off
    assert first_tokens([(0, 2), (3, 8), (9, 12)], [-1, 2, 5, 8, -1]) == (1, 2)


def test_words_have_the_token_that_begins_them(tokenizer):
    words = ["The", "unhappily", "cat"]
    text = " ".join(words)
    spans = ((0, 3), (4, 13), (14, 17))
    (found,) = encode(
        [Example("a", text, target=(0, 1, 2), words=spans)], tokenizer, Head.TOKENS, Data()
    )
    ids = found.inputs["input_ids"]
    assert found.trained == 3
    for place, word in zip(found.places, words, strict=True):
        piece = tokenizer.decode([ids[place]]).strip()
        assert piece
        assert word.startswith(piece)


def test_a_word_without_a_token_is_one_term_of_the_loss_with_the_next():
    """A zero-width space, for example; the label of the token is that of the word it belongs to."""
    found = Encoded("a", {"input_ids": [5, 6, 7]}, (0, 1, 2), places=(0, 2, 2))
    labels = collate([found], Head.TOKENS, 0)["labels"]
    assert labels.tolist() == [[0, IGNORE, 2]]
    assert found.trained == 2


def test_labels_of_words_that_are_cut_off_are_left_out(tokenizer):
    text = " ".join(["cat"] * 30)
    spans = tuple((4 * i, 4 * i + 3) for i in range(30))
    example = Example("a", text, target=(1,) * 30, words=spans)
    (found,) = encode([example], tokenizer, Head.TOKENS, Data(max_length=10))
    assert 0 < len(found.places) < 30
    assert found.target == (1,) * len(found.places)


def test_the_tokens_of_a_span():
    offsets = [NOWHERE, NOWHERE, (0, 2), (2, 5), (6, 9), NOWHERE]
    assert tokens_of_span((0, 5), offsets) == (2, 3)
    assert tokens_of_span((6, 9), offsets) == (4, 4)
    assert tokens_of_span((7, 12), offsets) == (0, 0)  # it ends outside of the window
    assert tokens_of_span((-1, -1), offsets) == (0, 0)


def test_windows_hold_all_of_a_context(tokenizer):
    context = " ".join(f"word{i}" for i in range(40))
    start = context.index("word33")
    example = Example("a", "where ?", context, target=(start, start + 6))
    found = encode([example], tokenizer, Head.SPANS, Data(max_length=32))
    assert len(found) > 1
    assert {item.id for item in found} == {"a"}
    covered = {i for item in found for a, b in item.offsets for i in range(a, b)}
    assert {i for i, char in enumerate(context) if char != " "} <= covered
    answers = []
    for item in found:
        first, last = item.target  # type: ignore[misc]
        if (first, last) != (0, 0):
            answers.append(context[item.offsets[first][0] : item.offsets[last][1]].strip())
    assert answers
    assert set(answers) == {"word33"}


def test_a_question_without_room_for_a_context(tokenizer):
    example = Example("a", "where " * 40, "there", target=(0, 5))
    with pytest.raises(DataError, match=r"data\.max_length"):
        encode([example], tokenizer, Head.SPANS, Data(max_length=16))
