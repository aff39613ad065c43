"""A text alone and in a padded batch has the same logits, or the base is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lorakit.bases.base import Base
from lorakit.bases.load import load
from lorakit.batches import Encoded, collate
from lorakit.errors import ModelError
from lorakit.evaluation.predict import predict_logits
from lorakit.models import Model
from lorakit.nn.left_padding import pad_left
from lorakit.tasks import Head
from tests.conftest import draw, make_config
from tests.encoded import encoded_rows
from tests.tiers import unit_or_slow

LABELS = ("no", "yes")
COMMON = {"vocab_size": 64, "pad_token_id": 0}
XLNET = {**COMMON, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}
FNET = {**COMMON, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}


@pytest.fixture
def folder(tokenizer, tmp_path) -> Callable[..., Path]:
    """`folder(config, pad)`: a classifier; pad: whether its tokenizer names a padding token."""

    def folder(config: Any, pad: bool = True) -> Path:
        import transformers

        model = transformers.AutoModelForSequenceClassification.from_config(config)
        draw(model, 0)
        model.save_pretrained(tmp_path / "base")
        tokenizer(60, pad).save_pretrained(tmp_path / "base")
        return tmp_path / "base"

    return folder


def _loaded(folder: Path) -> Base:
    base = load(Model(name=str(folder)), "classification", LABELS)
    base.model.eval()
    return base


def _items(base: Base) -> list[Encoded]:
    pad = base.tokenizer.pad_token_id
    every = [[5, 6], [7, 8, 9, 10, 11], [12, pad, 13], [14, 15, pad], [16, 17, 18, 19, 20, 21, 22]]
    return encoded_rows(every)


def _asked(base: Base, size: int) -> Tensor:
    pad = base.tokenizer.pad_token_id
    return torch.tensor(predict_logits(base.model, _items(base), Head.CLASSIFICATION, pad, size))


@pytest.mark.parametrize("pad", [True, False], ids=["tokenizer names one", "tokenizer names none"])
@pytest.mark.parametrize("said", [None, 0, 1, 3, 7, -1], ids=str)
@pytest.mark.parametrize(
    "family", unit_or_slow(["gpt2", "llama", "opt", "gemma2", "roberta"], ["gpt2", "roberta"])
)
def test_a_score_does_not_depend_on_the_batch(folder, family, said, pad):
    if family == "roberta" and said is None:
        pytest.skip("RoBERTa counts positions from it, so it must have one")
    base = _loaded(folder(make_config(family, pad_token_id=said), pad))
    torch.testing.assert_close(_asked(base, 1), _asked(base, 5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("said", [None, 3, 7, -1], ids=str)
def test_the_configuration_of_a_decoder_names_what_batches_are_padded_with(folder, said):
    base = _loaded(folder(make_config("llama", pad_token_id=said), pad=False))
    assert base.config.pad_token_id == base.tokenizer.pad_token_id == (3 if said == 3 else 1)


def test_positions_that_are_counted_from_a_padding_token_stay(folder):
    place = folder(make_config("roberta", pad_token_id=7))
    assert _loaded(place).config.pad_token_id == 7


def test_the_tokenizer_pads_on_the_side_that_was_proven(folder):
    """It is saved with a merged model; GPT-2's positions count padding on the left."""
    place = folder(make_config("gpt2"))
    file = place / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "padding_side": "left"}))
    assert _loaded(place).tokenizer.padding_side == "right"


def test_a_head_that_reads_the_last_position(folder):
    """XLNet's; a row ended in padding, and its logits were those of nothing."""
    import transformers

    place = folder(transformers.XLNetConfig(**XLNET))
    base = _loaded(place)
    torch.testing.assert_close(_asked(base, 1), _asked(base, 5), rtol=1e-4, atol=1e-5)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(place).eval()
    fields = collate(_items(base), Head.CLASSIFICATION, 0, side="left")
    with torch.no_grad():
        torch.testing.assert_close(plain(**fields).logits, _asked(base, 5), rtol=1e-4, atol=1e-5)


def test_a_model_that_mixes_padding_in_is_refused(folder):
    import transformers

    with pytest.raises(ModelError, match="FNetForSequenceClassification"):
        _loaded(folder(transformers.FNetConfig(**FNET)))


def test_a_head_that_counts_end_tokens_is_not_padded_with_them(folder):
    with pytest.raises(ModelError, match="<eos>"):
        _loaded(folder(make_config("t5", pad_token_id=None), pad=False))


def test_rows_are_moved_to_the_right():
    seen: dict[str, Tensor] = {}

    class Echo(torch.nn.Module):
        def forward(self, **fields: Tensor) -> None:
            seen.update(fields)

    model = Echo()
    handle = pad_left(model)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    ids = torch.tensor([[5, 6, 0, 0], [7, 8, 9, 5]])
    kinds = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 1]])
    model(input_ids=ids, attention_mask=mask, token_type_ids=kinds)
    assert seen["input_ids"].tolist() == [[0, 0, 5, 6], [7, 8, 9, 5]]
    assert seen["token_type_ids"].tolist() == [[0, 0, 0, 1], [0, 0, 1, 1]]
    assert seen["attention_mask"].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    handle.remove()
    model(attention_mask=mask)
    assert torch.equal(seen["attention_mask"], mask)
