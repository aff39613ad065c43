"""What users get wrong: one clear error, exit code 2, and nothing left that looks whole."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def own(tmp_path):
    """A user's recipe on a user's files."""
    rows = [{"text": f"it was {'good' if i % 2 else 'bad'} {i}", "label": "pos" if i % 2 else "neg"} for i in range(16)]
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"task: {{name: classification, train: {tmp_path}/train.jsonl, validation: {tmp_path}/validation.jsonl, "
        "text: text, label: label}\nmodel: {name: 'lorakit:tiny_encoder'}\nmethod: {name: lora, r: 2}\n"
        "data: {max_length: 32}\ntrain: {epochs: 1, global_batch_size: 8}\n"
    )
    return recipe


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("task.train=/nowhere.jsonl", "/nowhere.jsonl: no such file"),
        ("task.text=txt", "no column 'txt'; did you mean 'text'"),
        ("data.max_length=100000", "more than the"),
        ("model.name=/no/model", "there is no model folder '/no/model'"),
        ("model.name=lorakit:huge", "lorakit ships no base model 'lorakit:huge'"),
        ("method.targets=[query, valeu]", "target 'valeu' matches no linear layer"),
        ("method.targets=[query, 're:(']", "is not a regular expression"),
        ("method.targets=[query, q]", "is matched twice"),
        ("expect.sites=99", "expect.sites is 99, and the method gives"),
        ("train.micro_batch_size=3", "does not divide"),
        ("start_from=glue_mnli", "holds no finished run of that name"),
        ("model.config.no_such_setting=1", "has no setting 'no_such_setting'"),
        ("model.config.num_labels=7", "model.config: num_labels follows from the task"),
        ("model.config.hidden_dropout_prob=5", "no roberta can be built from these settings: dropout probability"),
        ("train.max_steps=1", "nothing would be learnt"),
        ("model.shape.hidden_size=7", "is not the model that this recipe was written for"),
    ],
)
def test_train_refuses(own, lorakit_cli, tmp_path, change, said):
    done = lorakit_cli("train", own, change, "--runs", tmp_path / "runs")
    assert done.code == 2
    assert said in done.err
    assert not list(tmp_path.rglob("result.json"))
    assert not list(tmp_path.rglob("adapter"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"text": "a", "label": "maybe"}\n', "'maybe' is no label of this task"),
        ('{"text": "a"}\n', "label"),
        ("{broken\n", "validation.jsonl:1"),
        ("", "no rows"),
        ("[1]\n", "validation.jsonl:1"),
    ],
)
def test_a_bad_row_names_file_and_line(own, lorakit_cli, tmp_path, text, said):
    (tmp_path / "validation.jsonl").write_text(text)
    done = lorakit_cli("train", own, "--runs", tmp_path / "runs")
    assert done.code == 2
    assert said in done.err


def test_a_file_where_the_runs_should_go(own, lorakit_cli, tmp_path):
    (tmp_path / "runs").write_text("")
    done = lorakit_cli("train", own, "--runs", tmp_path / "runs")
    assert done.code == 2
    assert "cannot write to the run folder" in done.err


def test_a_full_disk_leaves_no_adapter(own, lorakit_cli, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lorakit.hub.adapter.save_file", full)
    done = lorakit_cli("train", own, "--runs", tmp_path / "runs")
    assert done.code == 2
    assert "No space left on device" in done.err
    assert not list((tmp_path / "runs").rglob("*adapter*"))


@pytest.fixture
def adapter(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained / "seed0" / "adapter", tmp_path / "adapter"))


def test_a_truncated_adapter(adapter, lorakit_cli, tmp_path):
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    done = lorakit_cli("merge", adapter, "--to", tmp_path / "merged")
    assert done.code == 2
    assert "damaged or cut short" in done.err
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_another_base(adapter, lorakit_cli, tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from lorakit.models._load import location

    place = location("lorakit:tiny_encoder")
    AutoModelForMaskedLM.from_pretrained(place).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(place).save_pretrained(tmp_path / "base")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    save_file(
        {k: v + 0.01 for k, v in weights.items()}, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"}
    )
    done = lorakit_cli("merge", adapter, "--model", tmp_path / "base", "--to", tmp_path / "merged")
    assert done.code == 2
    assert "was trained on other weights" in done.err


@pytest.mark.parametrize("path", ["/no/run", "no-such-run", "."])
def test_what_is_no_run(lorakit_cli, path):
    assert lorakit_cli("eval", path).code == 2


def test_a_wrong_verb_and_a_wrong_option(lorakit_cli):
    assert "Did you mean 'train'" in lorakit_cli("trian").err
    assert lorakit_cli("train", "quickstart", "--sed", "1").code == 2


def test_a_dead_loss_stops_the_run(own, lorakit_cli, tmp_path):
    done = lorakit_cli(
        "train", own, "train.learning_rate=1e30", "train.warmup=0.0", "train.epochs=8", "--runs", tmp_path / "r"
    )
    assert done.code == 1
    assert "the loss is" in done.err or "not finite" in done.err
    assert not list(tmp_path.rglob("result.json"))
