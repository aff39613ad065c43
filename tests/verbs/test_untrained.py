"""The untrained model is scored once for all runs of a process that share it."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lorakit.errors import MetricError
from lorakit.metrics import metrics
from lorakit.runs.examiner import Examiner
from lorakit.tasks import _scoring
from lorakit.verbs.train import untrained
from tests.attaching import attach
from tests.conftest import small_method
from tests.tiers import unit_or_slow

FEW = [
    "train.max_steps=3",
    "train.global_batch_size=8",
    "train.warmup=0",
    "data.limit={train: 32, validation: 6}",
]
TEXTS = [*FEW, "data.max_length=100", "decode.max_new_tokens=6", "evaluate.every=99"]


@pytest.fixture(autouse=True)
def scored(monkeypatch):
    """How often an untrained model was scored since the test began, in a list of one number."""
    monkeypatch.setattr(untrained, "_asked", {})
    count = [0]
    score = Examiner.untrained

    def counting(*args):
        count[0] += 1
        return score(*args)

    monkeypatch.setattr(Examiner, "untrained", counting)
    return count


def _train(lorakit_cli, runs, *given):
    done = lorakit_cli("train", *given, "--runs", runs, "--json")
    assert done.code == 0, done.err
    return done.json["run"], done.json["base_scores"]


def _bytes(run, seed):
    return Path(run, f"seed{seed}", "adapter", "adapter_model.safetensors").read_bytes()


def test_once_for_the_seeds_without_a_new_head(lorakit_cli, tmp_path, scored):
    given = ["quickstart_generate", *TEXTS]
    both, scores = _train(lorakit_cli, tmp_path / "both", *given, "seeds=[0, 1]")
    assert scored == [1]
    untrained._asked.clear()
    alone, same = _train(lorakit_cli, tmp_path / "alone", *given, "seeds=[1]")
    assert scored == [2]
    assert same == scores
    assert _bytes(both, 1) == _bytes(alone, 1)


def test_each_seed_has_its_own_new_head(lorakit_cli, tmp_path, scored, monkeypatch):
    monkeypatch.setattr(untrained, "MOST_MODELS", 1)
    _train(lorakit_cli, tmp_path, "quickstart", *FEW, "seeds=[0, 1]")
    assert scored == [2]
    assert len(untrained._asked) == 1


def test_methods_and_rates_share_it(lorakit_cli, tmp_path, scored):
    found = [
        _train(lorakit_cli, tmp_path, "quickstart", *FEW, *more)[1]
        for more in (
            [],
            ["train.learning_rate=1e-4"],
            ["method={name: lora, r: 2, init: pissa}"],
            ["method=full"],
        )
    ]
    assert scored == [1]
    untrained._asked.clear()
    _, alone = _train(lorakit_cli, tmp_path / "alone", "quickstart", *FEW, "method=full")
    assert found == [alone] * 4


@pytest.mark.parametrize("method", ["lora", "prefix_embedding", "xlora"])
def test_it_has_an_adapter_that_training_starts_from(tiny, monkeypatch, method):
    """Without one, it is the bare base."""
    base = tiny("gpt2", "CausalLM")
    bare = base.logits()
    attachment = attach(small_method(method), base)
    base.step(attachment)
    monkeypatch.setattr(untrained, "autocast", lambda *_: nullcontext())
    recipe = SimpleNamespace(method=attachment.method)
    examiner = SimpleNamespace(untrained=lambda *_: base.logits())
    ready: Any = SimpleNamespace(attachment=attachment, examiner=examiner, base=base)
    accelerator = SimpleNamespace(device="cpu")
    for start in (None, "adapter"):
        job: Any = SimpleNamespace(
            recipe=recipe, start=start, scored=("validation",), accelerator=accelerator
        )
        found = untrained._ask(job, ready)
        started = start is not None or attachment.method.starts_at_base
        assert torch.equal(found, base.logits() if started else bare)


@pytest.mark.parametrize(
    "change",
    unit_or_slow(
        [
            "data.limit={train: 32, validation: 5}",
            "data.max_length=90",
            "decode.max_new_tokens=5",
            "evaluate.batch_size=3",
            "train.precision=bf16",
            "decode.no_repeat_ngram=2",
            "model.config.resid_pdrop=0.2",
        ],
        ["decode.max_new_tokens=5"],
    ),
)
def test_what_changes_it_is_scored_again(lorakit_cli, tmp_path, scored, change):
    given = ["quickstart_generate", *TEXTS]
    _train(lorakit_cli, tmp_path, *given)
    _train(lorakit_cli, tmp_path, *given, change)
    assert scored == [2]


class _Failing:
    """The metrics, while rouge fails."""

    def get(self, name):
        return self.fails if name == "rouge" else metrics.get(name)

    def fails(self, predictions, references):
        raise MetricError("not now")


def test_a_metric_that_fails_once_is_computed_the_next_time(
    lorakit_cli, tmp_path, scored, monkeypatch
):
    given = ["quickstart_generate", *TEXTS, "task.metrics=[exact_match, rouge]"]
    with monkeypatch.context() as patch:
        patch.setattr(_scoring, "metrics", _Failing())
        assert lorakit_cli("train", *given, "--runs", tmp_path / "failed").code == 1
    _, scores = _train(lorakit_cli, tmp_path / "again", *given)
    assert scored == [1]
    assert math.isfinite(scores["validation/rouge1"])


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json", "template"])
def test_a_file_of_the_base_that_changed_is_read(lorakit_cli, tmp_path, scored, file):
    place = tmp_path / "base"
    shutil.copytree(str(files("lorakit") / "assets" / "tiny_gpt2"), place)
    given = ["quickstart_generate", *TEXTS, f"model.name={place}"]
    if file == "template":
        (place / "t.jinja").write_text("{{ messages[0].content }}")
        given.append(f"model.chat_template={place}/t.jinja")
    _train(lorakit_cli, tmp_path / "runs", *given)
    if file == "template":
        (place / "t.jinja").write_text("{{ messages[0].content }}!")
    else:
        values = json.loads((place / file).read_text())
        change = {"chat_template": "{{ 1 }}", "activation_function": "relu"}
        (place / file).write_text(json.dumps(values | change))
    _train(lorakit_cli, tmp_path / "runs2", *given)
    assert scored == [2]


def test_an_adapter_to_start_from_is_scored_each_time(lorakit_cli, tmp_path, scored):
    first, _ = _train(lorakit_cli, tmp_path, "quickstart", *FEW)
    given = ["quickstart", *FEW, f"start_from={first}"]
    _train(lorakit_cli, tmp_path, *given)
    _train(lorakit_cli, tmp_path, *given, "train.learning_rate=1e-4")
    assert scored == [3]
