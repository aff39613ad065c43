"""The scores of a finished seed, computed again from its predictions and compared with what its
result.json says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lorakit
from lorakit.errors import DataError, InputError
from lorakit.evaluation.answers import Answer, score_answers
from lorakit.metrics import Failed, facts_of, metrics, without
from lorakit.runs.predictions import checked_answer, json_objects, reference_of
from lorakit.runs.result import SeedResult
from lorakit.tasks import Task

SAME = 1e-6
"""Relative difference of a score from the recorded one that rounding can explain."""
MOST_WORK, LONGEST = 2e7, 600
"""Slow metrics compare texts in pairs. They are left out above this sum of (characters of an output
times characters of a reference), or with a longer text: up to there they take a few seconds."""


def refuse_other_scores(task: Task, folder: Path, seed: SeedResult) -> list[str]:
    """Which scores of a seed could not be computed again from its predictions, and why.

    InputError, with the metric and both values: result.json says something else.
    """
    left = []
    for split, recorded in seed.scores.items():
        place = f"seed {seed.seed}, {split}"
        try:
            answers = read_answers(folder / "predictions" / f"{split}.jsonl")
            found, why = _scored(task, answers)
        except DataError as error:
            left.append(f"the scores of {place}: {error}")
            continue
        left += [f"{place}: {metric}: {why(metric)}" for metric in recorded if metric not in found]
        known = {metric: value for metric, value in recorded.items() if metric in found}
        differing = [metric for metric, value in known.items() if not _same(value, found[metric])]
        for metric in differing:
            then, now = known[metric], found[metric]
            if _had_failed(seed, metric, then):
                left.append(
                    f"{place}: {metric}: it could not be computed when the seed was trained"
                )
            elif version := _other_version(folder):
                left.append(f"{place}: {metric} was {then:.6g}, is {now:.6g}: {version}")
            else:
                _refuse(folder, split, metric, then, now)
    return left


def read_answers(file: Path) -> list[Answer]:
    """The inverse of `Answer.line`, as far as scores need it. DataError: a line that is not one."""
    found = []
    for where, line in json_objects(file):
        said = checked_answer(line, where)
        group = said.get("group", "")
        found.append(Answer(str(said["id"]), said["prediction"], reference_of(said), "", "", group))
    return found


def _scored(task: Task, answers: Sequence[Answer]) -> tuple[dict[str, float], Callable[[str], str]]:
    """The scores that can be computed, and a function that says why another one is not there."""
    facts = [facts_of(name) for name in metrics.names()]
    slow = {key for each in facts for key in each.slow} if _is_long(answers) else set()
    models = {key for each in facts if each.model for key in each.keys}
    failed: Failed = {}
    with without(slow | models):
        found = score_answers(task, answers, failed)

    def why(metric: str) -> str:
        for key, reason in failed.items():
            if _is_of(metric, key):
                return f"it cannot be computed: {reason}"
        if any(_is_of(metric, key) for key in slow):
            return "many or long texts would take too long; `lorakit score` computes it"
        if any(_is_of(metric, key) for key in models):
            return "it needs a model of its own; `lorakit score` computes it"
        return "it is not available on this machine"

    lost = [metric for metric in found if any(_is_of(metric, key) for key in failed)]
    return {metric: value for metric, value in found.items() if metric not in lost}, why


def _is_long(answers: Iterable[Answer]) -> bool:
    """Whether slow metrics would take more than a few seconds."""
    work = 0
    for answer in answers:
        said = str(answer.prediction)
        texts = answer.reference if isinstance(answer.reference, list) else [str(answer.reference)]
        work += sum(len(said) * len(text) for text in texts)
        if work > MOST_WORK or max(map(len, [said, *texts])) > LONGEST:
            return True
    return False


def _is_of(metric: str, key: str) -> bool:
    """A group's metric is called KEY_GROUP, and one on other tokens KEY_approx."""
    return metric == key or metric.startswith(f"{key}_")


def _had_failed(seed: SeedResult, metric: str, value: float) -> bool:
    failed = [check.name.removeprefix("metric ") for check in seed.checks if not check.passed]
    return math.isnan(value) and any(_is_of(metric, key) for key in failed)


def _same(then: float, now: float) -> bool:
    if math.isnan(then) or math.isnan(now):
        return math.isnan(then) and math.isnan(now)
    return math.isclose(then, now, rel_tol=SAME, abs_tol=SAME)


def _other_version(folder: Path) -> str:
    """In words, where the seed was scored by another version of lorakit; "" otherwise."""
    try:
        said: Any = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        said = None
    packages = said.get("packages") if isinstance(said, Mapping) else None
    then = packages.get("lorakit") if isinstance(packages, Mapping) else None
    if then == lorakit.__version__:
        return ""
    return f"it was scored by lorakit {then or 'of a version that is not recorded'}"


def _refuse(folder: Path, split: str, metric: str, then: float, now: float) -> None:
    raise InputError(
        f"{folder / 'result.json'} says that {metric} on {split} is {then:.6g}, and the "
        f"predictions ({folder / 'predictions' / split}.jsonl) give {now:.6g}: the score was "
        "changed after the seed was trained. Restore result.json from a copy, or train again with "
        "--restart."
    )
