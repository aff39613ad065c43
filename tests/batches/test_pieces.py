"""An example is shown in characters, not in the bytes of its tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

import lorakit
from lorakit.batches.pieces import HALF, marked_pieces

ASSETS = Path(lorakit.__file__).parent / "assets"
TEXTS = [
    "Everybody called the riverside lovely, yet  the dinner dreadful.",
    "Grüße 🎉🎉!\nDone  twice — 日本語 👩‍👩‍👧",
]


@pytest.fixture(scope="module", params=["tiny_encoder", "tiny_gpt2"])
def tokenizer(request):
    return AutoTokenizer.from_pretrained(ASSETS / request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_are_the_text(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    pieces = [piece for piece, _ in marked_pieces(tokenizer, ids, [False] * len(ids))]
    assert "".join(pieces) == tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert text in "".join(pieces)
    assert not any(HALF in piece for piece in pieces)
    assert len(pieces) > 5


def test_a_character_of_several_tokens_has_one_mark(tokenizer):
    ids = tokenizer("🎉", add_special_tokens=False)["input_ids"]
    assert len(ids) > 1
    marks = [False] * (len(ids) - 1) + [True]
    text, marked = marked_pieces(tokenizer, ids, marks)[-1]
    assert (text.strip(), marked) == ("🎉", True)


def test_a_replacement_character_of_the_text_holds_nothing_back(tokenizer):
    text = f"a{HALF}{HALF}b c"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = marked_pieces(tokenizer, ids, [True] * len(ids))
    assert "".join(piece for piece, _ in pieces).strip() == text


def test_word_pieces_have_no_stray_spaces():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"[UNK]": 0, "river": 1, "##side": 2, "a": 3, ".": 4}
    made = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(cleanup=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    pieces = marked_pieces(tokenizer, [3, 1, 2, 4], [False, False, True, False])
    assert pieces == [("a", False), (" river", False), ("side", True), (" .", False)]


def test_nothing_is_no_pieces(tokenizer):
    assert marked_pieces(tokenizer, [], []) == []
