"""Scores of a seed, computed again from its predictions."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext

import pytest

import lorakit
from lorakit.errors import InputError
from lorakit.evaluation.answers import Answer, score_answers
from lorakit.metrics import metrics
from lorakit.recipe.load import compose
from lorakit.runs import rescore
from lorakit.runs.lines import write_lines
from lorakit.runs.rescore import read_answers, refuse_other_scores
from lorakit.runs.result import Check, SeedResult
from tests.tiers import unit_or_slow

SAID = ["the cat sat on a mat", "two dogs bark at night", "it rains in the town today"]
RIGHT = [["the cat sat on the mat"], ["dogs bark at night", "two dogs bark"], ["it rained in town"]]


def _task(*metric: str):
    task = {"name": "text", "train": "a", "validation": "b"}
    task["metrics"] = list(metric)
    return compose({"task": task, "model": {"name": "-"}, "method": {"name": "full"}}).task


@pytest.fixture
def seed(tmp_path):
    """Makes a seed's folder of a task, and its result with the right scores."""

    def make(task, answers, checks=()):
        write_lines(tmp_path / "predictions" / "validation.jsonl", (a.line() for a in answers))
        packages = {"packages": {"lorakit": lorakit.__version__}}
        (tmp_path / "environment.json").write_text(json.dumps(packages))
        scores = {"validation": score_answers(task, answers, {})}
        return SeedResult(
            seed=0, scores=scores, base_scores={}, epochs=1, steps=1, seconds={}, checks=checks
        )

    return make


def _texts(group: str = "") -> list[Answer]:
    groups = [group, "", group]
    pairs = zip(SAID, RIGHT, groups, strict=True)
    return [Answer(str(i), said, right, said, "", g) for i, (said, right, g) in enumerate(pairs)]


def _with(seed: SeedResult, metric: str, value: float) -> SeedResult:
    scores = seed.scores["validation"] | {metric: value}
    return seed.model_copy(update={"scores": {"validation": scores}})


CHEAP = ["bleu", "nist", "rouge", "ter", "exact_match", "cider", "rouge_l"]


@pytest.mark.parametrize("name", CHEAP)
def test_texts(tmp_path, seed, name):
    task = _task(*(["bleu"] if name == "ter" else []), name)
    result = seed(task, _texts("seen"))
    assert refuse_other_scores(task, tmp_path, result) == []
    for metric in result.scores["validation"]:
        with pytest.raises(InputError, match=rf"{metric} on validation is 4321"):
            refuse_other_scores(task, tmp_path, _with(result, metric, 4321.0))


@pytest.mark.parametrize(("factor", "refused"), [(1 + 1e-8, False), (1 + 1e-5, True)])
def test_rounding_is_accepted_and_nothing_else(tmp_path, seed, factor, refused):
    task = _task("bleu")
    result = seed(task, _texts())
    changed = _with(result, "bleu", factor * result.scores["validation"]["bleu"])
    with pytest.raises(InputError) if refused else nullcontext():
        assert refuse_other_scores(task, tmp_path, changed) == []


def test_a_group_is_scored_too(tmp_path, seed):
    task = _task("bleu")
    assert "bleu_seen" in seed(task, _texts("seen")).scores["validation"]


@pytest.mark.parametrize("texts", ["many", "long"])
def test_what_is_slow_is_left_out_and_the_rest_is_not(tmp_path, seed, monkeypatch, texts):
    monkeypatch.setattr(rescore, "MOST_WORK" if texts == "many" else "LONGEST", 10)
    task = _task("bleu", "ter", "rouge")
    result = seed(task, _texts("seen"))
    left = refuse_other_scores(task, tmp_path, _with(result, "ter", 4321.0))
    kinds = ["ter", *metrics.get("rouge").facts.keys]
    assert len(left) == 2 * len(kinds)
    assert all(any(f"{kind}: " in line for line in left) for kind in kinds)
    with pytest.raises(InputError, match="bleu"):
        refuse_other_scores(task, tmp_path, _with(result, "bleu", 4321.0))


@pytest.mark.parametrize(
    "suite", unit_or_slow(["e2e_metrics", "generation_eval"], ["generation_eval"])
)
def test_of_a_suite_the_slow_ones_alone_are_left_out(seed, tmp_path, monkeypatch, suite):
    monkeypatch.setattr(rescore, "MOST_WORK", 10)
    task = _task(suite)
    result = seed(task, _texts())
    slow = metrics.get(suite).facts.slow
    left = refuse_other_scores(task, tmp_path, result)
    assert len(left) == len([metric for metric in result.scores["validation"] if metric in slow])


def test_a_metric_with_a_model_is_left_out(tmp_path, seed):
    task = _task("bleu", "bertscore")
    result = _with(seed(_task("bleu"), _texts()), "bertscore_f1", 0.9)
    (left,) = refuse_other_scores(task, tmp_path, result)
    assert "bertscore_f1" in left


def test_a_metric_that_failed_then_has_nothing_to_compare(tmp_path, seed):
    task = _task("bleu", "ter")
    failed = Check(name="metric ter", passed=False)
    result = _with(seed(task, _texts(), (failed,)), "ter", math.nan)
    (left,) = refuse_other_scores(task, tmp_path, result)
    assert "ter" in left
    removed = result.model_copy(update={"checks": ()})
    with pytest.raises(InputError, match="ter on validation is nan"):
        refuse_other_scores(task, tmp_path, removed)


def test_a_metric_that_fails_now_is_said(tmp_path, seed, monkeypatch):
    task = _task("bleu", "ter")
    result = seed(task, _texts())

    def fails(*_, **__):
        raise OSError("no disk")

    monkeypatch.setattr("lorakit.metrics.ter.mean_ter", fails)
    (left,) = refuse_other_scores(task, tmp_path, result)
    assert "ter" in left
    assert "no disk" in left


def test_numbers_and_a_correlation_that_is_not_defined(tmp_path, seed):
    parts = {"name": "regression", "train": "a", "validation": "b"}
    recipe = compose({"task": parts, "model": {"name": "-"}, "method": {"name": "full"}})
    answers = [Answer(str(i), 0.1, 0.1 * i, [0.1], "") for i in range(4)]
    result = seed(recipe.task, answers)
    assert math.isnan(result.scores["validation"]["pearson"])
    assert refuse_other_scores(recipe.task, tmp_path, result) == []
    with pytest.raises(InputError, match="pearson on validation is 99"):
        refuse_other_scores(recipe.task, tmp_path, _with(result, "pearson", 99.0))


def test_predictions_come_back_as_they_were(tmp_path, seed):
    answers = _texts("seen")
    seed(_task("bleu"), answers)
    found = read_answers(tmp_path / "predictions" / "validation.jsonl")
    kept = [(a.id, a.prediction, a.reference, a.group) for a in answers]
    assert [(a.id, a.prediction, a.reference, a.group) for a in found] == kept


def test_predictions_that_are_not_there_are_said(tmp_path, seed):
    task = _task("bleu")
    result = seed(task, _texts())
    (tmp_path / "predictions" / "validation.jsonl").unlink()
    (left,) = refuse_other_scores(task, tmp_path, result)
    assert "validation.jsonl" in left
