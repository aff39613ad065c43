"""RoBERTa's positions are counted from config.pad_token_id; one that the checkpoint was not trained
with is noticed."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lorakit.bases.files import location
from lorakit.bases.load import load
from lorakit.errors import ModelError
from lorakit.models import Model
from lorakit.recipe.load import load_recipe
from lorakit.verbs.check import check

TABLE = "roberta.embeddings.position_embeddings.weight"
LABELS = ("no", "yes")


@pytest.fixture
def base(tmp_path) -> Path:
    """Trained with padding token 1, whose row of positions is zero, as its tokenizer says."""
    return Path(shutil.copytree(location("lorakit:tiny_encoder"), tmp_path / "base"))


def _config(base: Path, pad: int) -> None:
    file = base / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token_id": pad}))


def _tokenizer(base: Path, pad: str) -> None:
    file = base / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": pad}))


def _fill(base: Path) -> None:
    """As a checkpoint whose rows are all drawn."""
    tensors = load_file(base / "model.safetensors")
    tensors[TABLE][1] = 0.125
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


def _load(base: Path, caplog, **more) -> list[str]:
    with caplog.at_level(logging.WARNING, logger="lorakit.bases.positions"):
        load(Model(name=str(base), **more), "classification", LABELS)
    return [r.getMessage() for r in caplog.records if r.name == "lorakit.bases.positions"]


@pytest.mark.parametrize("head", ["classification", "regression"])
@pytest.mark.parametrize("pad", [0, 2, 5])
def test_another_pad_token_than_the_checkpoint_and_the_tokenizer_have(base, pad, head):
    _config(base, pad)
    with pytest.raises(ModelError, match=rf"pad_token_id {pad} .*pad_token_id=1"):
        load(Model(name=str(base)), head, LABELS)


def test_the_advice_works(base, caplog):
    _config(base, 5)
    assert _load(base, caplog, config={"pad_token_id": 1}) == []


def test_check_knows_it_too(base):
    said = ["data.limit={train: 16, validation: 8}", f"model.name={base}"]
    assert check(load_recipe("quickstart", said).recipe).rows
    _config(base, 5)
    with pytest.raises(ModelError, match="trained with 1"):
        check(load_recipe("quickstart", said).recipe)


def test_from_the_recipe(base):
    with pytest.raises(ModelError, match="trained with 1"):
        load(Model(name=str(base), config={"pad_token_id": 3}), "classification", LABELS)


def test_what_agrees_is_loaded_in_silence(base, caplog):
    assert _load(base, caplog) == []


def test_a_tokenizer_that_pads_with_another_token_does_not_shift_anything(base, caplog):
    """The checkpoint says that the configuration is right."""
    _tokenizer(base, "</s>")
    assert _load(base, caplog) == []


def test_a_checkpoint_without_a_sign_is_a_warning(base, caplog):
    _fill(base)
    _config(base, 2)
    (said,) = _load(base, caplog)
    assert "row 3" in said
    assert "token 1" in said


def test_where_nothing_can_be_known_nothing_is_said(base, caplog):
    _fill(base)
    assert _load(base, caplog) == []


def test_a_tokenizer_that_was_changed_too_is_a_warning(base, caplog):
    _config(base, 2)
    _tokenizer(base, "</s>")
    (said,) = _load(base, caplog)
    assert "row 1 of the table is zero" in said


def test_a_family_that_counts_from_zero_has_no_such_row(caplog):
    assert _load(Path(location("lorakit:tiny_gpt2")), caplog) == []
