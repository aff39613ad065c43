"""The untrained model is scored once for all runs of a process that share it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorakit.runs.examiner import Examiner
from lorakit.verbs.train import untrained
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
    monkeypatch.setattr(untrained, "_known", {})
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
    untrained._known.clear()
    alone, same = _train(lorakit_cli, tmp_path / "alone", *given, "seeds=[1]")
    assert scored == [2]
    assert same == scores
    assert _bytes(both, 1) == _bytes(alone, 1)


def test_each_seed_has_its_own_new_head(lorakit_cli, tmp_path, scored):
    _train(lorakit_cli, tmp_path, "quickstart", *FEW, "seeds=[0, 1]")
    assert scored == [2]


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
    untrained._known.clear()
    _, alone = _train(lorakit_cli, tmp_path / "alone", "quickstart", *FEW, "method=full")
    assert found == [alone] * 4


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


def test_an_adapter_to_start_from_is_scored_each_time(lorakit_cli, tmp_path, scored):
    first, _ = _train(lorakit_cli, tmp_path, "quickstart", *FEW)
    given = ["quickstart", *FEW, f"start_from={first}"]
    _train(lorakit_cli, tmp_path, *given)
    _train(lorakit_cli, tmp_path, *given, "train.learning_rate=1e-4")
    assert scored == [3]
