"""A base that is damaged, by every verb that reads it: exit code 2, the file or the tensor, and
nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lorakit.bases.files import location

TENSOR = "roberta.encoder.layer.0.output.dense.weight"


def cut(folder: Path) -> str:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return folder.name


def no_number(folder: Path) -> str:
    tensors = load_file(folder / "model.safetensors")
    tensors[TENSOR][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return TENSOR


def no_size(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    del config["vocab_size"]
    (folder / "config.json").write_text(json.dumps(config))
    return "vocab_size"


@pytest.fixture
def base(tmp_path) -> Path:
    return Path(shutil.copytree(location("lorakit:tiny_encoder"), tmp_path / "base"))


@pytest.mark.parametrize("damage", [cut, no_number, no_size])
@pytest.mark.parametrize("verb", [["eval"], ["merge"], ["merge", "--examples", 0]])
def test_with_a_run(trained, base, lorakit_cli, tmp_path, damage, verb):
    said, to = damage(base), tmp_path / "merged"
    where = ["--to", to] if verb[0] == "merge" else ["--out", tmp_path / "out"]
    done = lorakit_cli(verb[0], trained, "--seed", 0, "--model", base, *verb[1:], *where)
    assert done.code == 2
    assert said in done.err
    assert not to.exists()
    assert not list(tmp_path.glob(".merged*"))


@pytest.mark.parametrize("damage", [cut, no_number, no_size])
def test_with_a_recipe(base, lorakit_cli, tmp_path, damage):
    said = damage(base)
    small = ["data.limit={train: 32, validation: 8}"]
    done = lorakit_cli(
        "train", "quickstart", f"model.name={base}", *small, "--runs", tmp_path / "runs"
    )
    assert done.code == 2
    assert said in done.err
    checked = lorakit_cli("check", "quickstart", f"model.name={base}")
    assert checked.code == 2
    assert said in checked.err
