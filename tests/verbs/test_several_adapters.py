"""`eval` and `generate` with several adapters: one load of the base, the answers of each alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import lorakit
import lorakit.runs.together
from lorakit.bases.load import load
from lorakit.models import Model
from tests.commands import SMALL


def train(recipe: str, overrides: list[str], folder: Path) -> Path:
    from lorakit.recipe.load import load_recipe
    from lorakit.verbs.train import train_recipe

    return train_recipe(load_recipe(recipe, overrides), folder, lambda event: None)[0]


@pytest.fixture(scope="module")
def inserts(tmp_path_factory) -> Path:
    """A run of another method on the quickstart's base."""
    method = ["method={name: adapter_h, r: 4}", "train.learning_rate=1e-3", "seeds=[0]"]
    return train("quickstart", [*SMALL, *method], tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def writers(tmp_path_factory) -> Path:
    """Two seeds that write texts."""
    small = ["train.max_steps=8", "data.limit={train: 64, validation: 4}", "seeds=[0, 1]"]
    short = ["decode.max_new_tokens=8"]
    return train("quickstart_generate", [*small, *short], tmp_path_factory.mktemp("runs"))


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The bases that were loaded for several adapters."""
    found = []
    real = lorakit.runs.together.load

    def counted(model, *rest):
        found.append(model.name)
        return real(model, *rest)

    monkeypatch.setattr(lorakit.runs.together, "load", counted)
    return found


def flags(paths: list[Path]) -> list[object]:
    return [word for path in paths for word in ("--adapter", path)]


def test_each_adapter_has_the_scores_of_its_own_eval(trained, inserts, lorakit_cli, loads):
    paths = [trained / "seed0", trained / "seed1", inserts]
    done = lorakit_cli("eval", *flags(paths), "--json")
    assert done.code == 0, done.err
    assert loads == ["lorakit:tiny_encoder"]
    found = done.json["adapters"]
    assert list(found) == [str(path) for path in paths]
    written = {}
    for path in paths:
        assert found[str(path)].pop("memory_bytes") > 0
        (file,) = found[str(path)]["files"]
        written[path] = Path(file).read_bytes()
    for path in paths:
        alone = lorakit_cli("eval", path, "--json")
        assert alone.json == found[str(path)]
        assert Path(alone.json["files"][0]).read_bytes() == written[path]
    assert len(set(written.values())) == 3


@torch.no_grad()
def test_a_base_that_lorakit_made_fast_is_mixed_too(trained, inserts):
    """Its last layer is computed at the first token only, and its products by other kernels."""
    base = load(Model(name="lorakit:tiny_encoder"), "classification", ["negative", "positive"])
    model: Any = base.model.eval()
    adapters = lorakit.Adapters(model)
    for name, path in {"a": trained / "seed0", "b": trained / "seed1", "c": inserts}.items():
        adapters.add(name, path)
    texts = ["a wonderful film", "dull", "the soup was anything but bad", "good", "a film"]
    batch = base.tokenizer(texts, return_tensors="pt", padding=True)
    names = ["b", "a", "c", "a", None]
    with adapters.mix(names):
        mixed = model(**batch).logits
    for row, name in enumerate(names):
        adapters.switch(name)
        single = base.tokenizer([texts[row]], return_tensors="pt")
        assert torch.allclose(mixed[row], model(**batch).logits[row], rtol=1e-6, atol=1e-6)
        assert torch.allclose(mixed[row], model(**single).logits[0], rtol=1e-5, atol=1e-5)


def test_a_table_has_a_row_for_each(trained, inserts, lorakit_cli, tmp_path):
    paths = [trained / "seed0", inserts]
    limit = "data.limit.validation=8"
    done = lorakit_cli("eval", limit, *flags(paths), "--out", tmp_path / "out")
    assert done.code == 0, done.err
    for path in paths:
        (row,) = (line for line in done.out.splitlines() if line.startswith(str(path)))
        assert {"classification", "validation", "accuracy", "KiB"} <= set(row.split())
    assert "2 adapters on lorakit:tiny_encoder" in done.out
    for name in ("1-seed0", f"2-{inserts.name}"):
        lines = (tmp_path / "out" / name / "validation.jsonl").read_text().splitlines()
        assert len(lines) == 8


def test_each_adapter_writes_what_it_writes_alone(writers, lorakit_cli, loads, tmp_path):
    paths = [writers / "seed0", writers / "seed1"]
    asked = ["--prompt", "name: Lucky Fox | price: cheap", "--prompt", "name: Old Inn", "--json"]
    file = tmp_path / "answers.jsonl"
    done = lorakit_cli("generate", *flags(paths), *asked, "--out", file)
    assert done.code == 0, done.err
    assert loads == ["lorakit:tiny_gpt2"]
    found = done.json["adapters"]
    for path in paths:
        assert lorakit_cli("generate", path, *asked).json["answers"] == found[str(path)]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["adapter"] for line in lines] == [str(p) for p in paths for _ in range(2)]
    shown = lorakit_cli("generate", *flags(paths), *asked[:-1])
    assert all(f"{path}:" in shown.out for path in paths)


def test_what_does_not_fit_together_is_one_error(trained, writers, lorakit_cli, loads, tmp_path):
    first, second = trained / "seed0", trained / "seed1"
    bf16 = "model.dtype=bf16"
    other = train("quickstart", [*SMALL, "seeds=[0]", bf16], tmp_path)
    wrong = {
        (first, "--adapter", second): str(first),
        (): "PATH",
        ("--adapter", first, "--adapter", f"{first}/"): "twice",
        ("--adapter", first, "--adapter", tmp_path / "nowhere"): "nowhere",
        ("--adapter", first, "--adapter", writers / "seed0"): "causal",
        ("--adapter", first, "--adapter", second, "--split", "tests"): "tests",
    }
    if "bf16" not in (trained / "recipe.yaml").read_text():
        wrong[("--adapter", first, "train.precision=fp32", "--adapter", other)] = "model.dtype"
    for words, said in wrong.items():
        done = lorakit_cli("eval", *words, "--json")
        assert done.code == 2, words
        assert said in done.err
        assert done.out == ""
    assert loads == []


def test_a_plain_model_is_not_an_adapter(trained, lorakit_cli, loads, tmp_path):
    merged = tmp_path / "merged"
    assert lorakit_cli("merge", trained, "--to", merged, "--examples", 0).code == 0
    done = lorakit_cli("eval", "--adapter", trained, "--adapter", merged, "--json")
    assert done.code == 2
    assert str(merged) in done.err
    assert loads == []
