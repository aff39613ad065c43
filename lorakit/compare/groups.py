"""Finished runs with their saved predictions, checked so that they can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit.errors import DataError, InputError
from lorakit.recipe.load import compose
from lorakit.recipe.schema import Recipe
from lorakit.runs.folder import is_run, is_seed, seed_folder
from lorakit.runs.predictions import checked_answer, json_objects, reference_of
from lorakit.runs.result import Result, SeedResult

Line = dict[str, Any]
"""A line of a file of predictions, as `checked_answer` returns it."""


@dataclass(frozen=True)
class RunGroup:
    """A finished run with its seeds in order."""

    folder: Path
    """The run folder, or the folder of its one seed."""
    recipe: Recipe
    result: Result
    seeds: tuple[SeedResult, ...]

    @property
    def run(self) -> Path:
        return self.folder.parent if is_seed(self.folder) else self.folder

    @property
    def short_folder(self) -> str:
        if is_seed(self.folder):
            return f"{self.folder.parent.name}/{self.folder.name}"
        return self.folder.name


@dataclass(frozen=True)
class PredictedGroup:
    """A finished run with the predictions of every seed on one split, line by line."""

    name: str
    group: RunGroup
    predictions: tuple[list[Line], ...]


def load_groups(paths: Sequence[Path], split: str | None) -> tuple[str, list[PredictedGroup]]:
    """The split to compare on, and the runs with their predictions on it.

    InputError: fewer than two runs, or one of them twice. DataError: runs of different tasks, or
    predictions that are missing, changed, or on different examples.
    """
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise InputError("give two runs or more, each once: lorakit compare RUN RUN")
    groups = [_load_group(path) for path in paths]
    task = groups[0].recipe.task
    for group in groups[1:]:
        other = group.recipe.task.name
        if other != task.name:
            raise DataError(
                f"{groups[0].folder} has the task {task.name}, and {group.folder} has {other}; "
                "only runs of one task can be compared"
            )
    split = split or (*task.final_splits, *task.eval_splits)[0]
    found = [
        PredictedGroup(name, group, _load_predictions(group, split))
        for name, group in zip(_names(groups), groups, strict=True)
    ]
    for other in found[1:]:
        _refuse_other_examples(found[0], other, split)
    return split, found


def _load_group(path: Path) -> RunGroup:
    run = path.parent if is_seed(path) else path
    if not is_run(run):
        raise InputError(
            f"{path} is not a run folder; give one that `lorakit train` wrote, or a seed of it"
        )
    result = Result.read(run / "result.json")
    seeds = tuple(sorted(result.seeds, key=lambda seed: seed.seed))
    if run != path:
        seeds = tuple(seed for seed in seeds if path.name == f"seed{seed.seed}")
        if not seeds:
            raise DataError(
                f"{run}/result.json does not have {path.name}; was its training completed?"
            )
    return RunGroup(path, _recipe_of(result, run), result, seeds)


def _recipe_of(result: Result, run: Path) -> Recipe:
    """A recipe with the values that the predictions depend on.

    The run may be from an earlier version, whose other values are not valid now.
    """
    values = result.recipe_values
    try:
        data = {
            "task": values["task"],
            "data": {"limit": values["data"]["limit"]},
            "evaluate": {"keep": values["evaluate"]["keep"]},
            "model": {"name": "-"},
            "method": {"name": "full"},
        }
    except (LookupError, TypeError):
        raise DataError(
            f"{run}/result.json does not hold the recipe, so its task is not known"
        ) from None
    return compose(data)


def _load_predictions(group: RunGroup, split: str) -> tuple[list[Line], ...]:
    return tuple(
        _load_lines(seed_folder(group.run, seed.seed) / "predictions", split)
        for seed in group.seeds
    )


def _load_lines(folder: Path, split: str) -> list[Line]:
    file = folder / f"{split}.jsonl"
    if not file.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.jsonl"))) or "none"
        raise DataError(
            f"{file} does not exist, so the split {split} cannot be compared (there are: {there})"
        )
    lines = [checked_answer(line, where) for where, line in json_objects(file)]
    if not lines:
        raise DataError(f"{file} is empty")
    if len({line["id"] for line in lines}) < len(lines):
        raise DataError(f"{file} has an id twice; each example has one prediction")
    return lines


def _refuse_other_examples(first: PredictedGroup, second: PredictedGroup, split: str) -> None:
    wanted = {line["id"]: reference_of(line) for line in first.predictions[0]}
    folders = f"{first.group.folder} and {second.group.folder}"
    for lines in (*first.predictions, *second.predictions):
        found = {line["id"]: reference_of(line) for line in lines}
        if found.keys() != wanted.keys():
            odd = min(found.keys() ^ wanted.keys())
            raise DataError(
                f"{folders} have predictions on different examples of {split}: {len(wanted)} and "
                f"{len(found)}{_limits(first, second, split)}, and {odd!r} is in one only; "
                "evaluate both on the same examples"
            )
        different = [id for id in wanted if found[id] != wanted[id]]
        if different:
            raise DataError(
                f"{folders} have different references for {different[0]!r} of {split} and "
                f"{len(different) - 1} more: their data are not the same"
            )


def _limits(first: PredictedGroup, second: PredictedGroup, split: str) -> str:
    """The limits of the data, where they differ."""
    limits = [one.group.recipe.data.limit.get(split) for one in (first, second)]
    if limits[0] == limits[1]:
        return ""
    return f" (data.limit.{split}: {limits[0] or 'none'} and {limits[1] or 'none'})"


def _names(groups: Sequence[RunGroup]) -> list[str]:
    """The methods, where they differ; otherwise the folders."""
    methods = [_method_name(group) for group in groups]
    if len(set(methods)) == len(groups):
        return methods
    folders = [group.short_folder for group in groups]
    if len(set(folders)) == len(groups):
        return folders
    return [str(group.folder) for group in groups]


def _method_name(group: RunGroup) -> str:
    method = group.result.method
    name = str(method["name"])
    return f"{name} r={method['r']}" if "r" in method else name
