"""The plan of a study: its runs in order, each a recipe with overrides, all validated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lorakit.errors import RecipeError, did_you_mean
from lorakit.recipe.load import COMMAND_LINE, STUDIES, LoadedRecipe, build, find, listing, shipped
from lorakit.recipe.naming import checked_name
from lorakit.recipe.problems import describe, mark_of
from lorakit.recipe.source import Mark, Marks, read_yaml
from lorakit.studies.schema import Slurm, Study, Where, as_text, keys_of

MOST_CELLS = 1000
MarkedOverride = tuple[str, Mark]
"""An override, and where it is written."""


@dataclass(frozen=True)
class Cell:
    """One run: a recipe with overrides and all its seeds."""

    label: str
    recipe: str
    overrides: tuple[str, ...]
    loaded: LoadedRecipe
    point: dict[str, Any]
    """Axis -> value of this run."""

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.loaded.recipe.seeds


@dataclass(frozen=True)
class Plan:
    """A study file with its runs in order."""

    name: str
    path: Path
    study: Study
    cells: tuple[Cell, ...]
    axes: tuple[str, ...]
    """The axes in which runs differ. Keys that change together are one, named after the first."""


@dataclass(frozen=True)
class Candidate:
    """A run before its recipe is loaded."""

    label: str
    recipe: str
    mark: Mark
    """Where the recipe is named."""
    point: dict[str, Any]
    overrides: list[MarkedOverride]


def load_study(name_or_path: str, overrides: Sequence[str] = ()) -> Plan:
    """The plan of a study file or a shipped study.

    overrides: `key=value` and `~key` for every run, after the study's own.

    RecipeError: it lists every problem of the file and of its runs.
    """
    path = find_study(name_or_path)
    name = checked_name(path.stem, path)
    data, marks = read_yaml(path)
    study = _validate(data, marks)
    count = len(study.recipes) * max(1, len(study.cells)) * prod(map(len, study.grid.values()))
    if count > MOST_CELLS:
        raise RecipeError(
            f"{mark_of(('grid',), marks)}: {count:,} runs are more than {MOST_CELLS:,}; "
            "remove values or an axis"
        )
    return Plan(name, path, study, _Cells(study, path, marks).load(overrides), _axes(study))


def study_names() -> list[str]:
    """The names of all shipped studies."""
    return sorted(file.stem for file in (shipped("recipes") / STUDIES).glob("*.yaml"))


def find_study(name_or_path: str) -> Path:
    """The file of that path, otherwise the shipped study of that name. RecipeError: neither."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    name = name_or_path.removeprefix("recipes/").removeprefix(f"{STUDIES}/").removesuffix(".yaml")
    known = study_names()
    if name in known:
        return shipped("recipes") / STUDIES / f"{name}.yaml"
    raise RecipeError(
        f"no study file {name_or_path!r}, and no shipped study {name!r}"
        f"{did_you_mean(name, known)} (there are: {', '.join(known)})"
    )


def _validate(data: Mapping[str, Any], marks: Marks) -> Study:
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        parts = {f"where.{i}": Where for i in range(len(data.get("where") or ()))}
        sections: dict[str, type[BaseModel]] = {"": Study, **parts}
        sections["slurm"] = Slurm
        problems = describe(error, marks, sections)
    raise RecipeError(listing(mark_of((), marks).file, problems))


class _Cells:
    """Loads the runs of one study, and collects their problems."""

    def __init__(self, study: Study, path: Path, marks: Marks):
        self.study = study
        self.path = path
        self.marks = marks
        # in order and each once: a wrong key is wrong in every run
        self.problems: dict[str, None] = {}
        self.labels: dict[str, str] = {}
        """The content of a recipe -> the run that has it."""
        self.used: set[int] = set()
        """The places of those of `where` that hold for a run."""

    def load(self, overrides: Sequence[str]) -> tuple[Cell, ...]:
        """All cells. RecipeError: it lists every problem."""
        found = [self._cell(candidate, overrides) for candidate in _points(self.study, self.marks)]
        for i, where in enumerate(self.study.where):
            if i not in self.used:
                mark = mark_of(("where", str(i)), self.marks)
                self._add(f"{mark}: where: no run is at {json.dumps(where.at)}")
        if self.problems:
            raise RecipeError(listing(mark_of((), self.marks).file, list(self.problems)))
        return tuple(cell for cell in found if cell is not None)

    def _cell(self, candidate: Candidate, more: Sequence[str]) -> Cell | None:
        """None where the run has a problem."""
        given = [*candidate.overrides, *self._where(candidate.point)]
        given += [(text, COMMAND_LINE) for text in more]
        overrides = tuple(text for text, _ in given)
        recipe = _file_next_to(candidate.recipe, self.path)
        try:
            found = find(recipe)
        except RecipeError as error:
            self._add(f"{candidate.mark}: recipes: {error}")
            return None
        try:
            loaded = build(found, overrides, [mark for _, mark in given])
        except RecipeError as error:
            self._add(*problems_of(error))
            return None
        self._refuse_twin(candidate, loaded)
        return Cell(candidate.label, recipe, overrides, loaded, candidate.point)

    def _where(self, point: Mapping[str, Any]) -> list[MarkedOverride]:
        found: list[MarkedOverride] = []
        for i, where in enumerate(self.study.where):
            if all(key in point and point[key] == value for key, value in where.at.items()):
                found += marked(where.set, ("where", str(i), "set"), self.marks)
                self.used.add(i)
        return found

    def _refuse_twin(self, candidate: Candidate, loaded: LoadedRecipe) -> None:
        content = {**loaded.recipe.plain(), "seeds": 0, "name": loaded.name}
        known = json.dumps(content, sort_keys=True)
        if known in self.labels:
            labels = f"{candidate.label!r} and {self.labels[known]!r}"
            self._add(f"{candidate.mark.file}: {labels} are the same run; remove one")
        self.labels[known] = candidate.label

    def _add(self, *problems: str) -> None:
        self.problems.update(dict.fromkeys(problems))


def problems_of(error: RecipeError) -> list[str]:
    """The problems that the error lists under its first line, or its only one."""
    lines = str(error).splitlines()
    return [line.strip() for line in (lines[1:] or lines)]


def _points(study: Study, marks: Marks) -> Iterator[Candidate]:
    common = marked(study.set, ("set",), marks)
    if study.seeds is not None:
        common.append((f"seeds={list(study.seeds)}", mark_of(("seeds",), marks)))
    cells = {name: marked(texts, ("cells", name), marks) for name, texts in study.cells.items()}
    names = short_names(_grid_keys(study))
    combinations = product(enumerate(study.recipes), cells or [None], product(*study.grid.values()))
    for (i, recipe), cell, values in combinations:
        point: dict[str, Any] = {}
        if len(study.recipes) > 1:
            point["recipe"] = recipe
        overrides = list(common)
        if cell is not None:
            point["cell"] = cell
            overrides += cells[cell]
        label = [str(value) for value in point.values()]
        for line, key, value in _settings(study, values):
            point[names[key]] = value
            overrides.append((f"{key}={as_text(value)}", mark_of(("grid", line), marks)))
            label.append(f"{names[key]}={_short(value)}")
        mark = mark_of(("recipes", str(i)), marks)
        yield Candidate(", ".join(label) or recipe, recipe, mark, point, overrides)


def _settings(study: Study, values: Sequence[Any]) -> Iterator[tuple[str, str, Any]]:
    """(line of the grid, key, value) of one combination."""
    for line, value in zip(study.grid, values, strict=True):
        keys = keys_of(line)
        # a line with one key has plain values
        parts = [value] if len(keys) == 1 else value
        for key, part in zip(keys, parts, strict=True):
            yield line, key, part


def _grid_keys(study: Study) -> list[str]:
    return [key for line in study.grid for key in keys_of(line)]


def _axes(study: Study) -> tuple[str, ...]:
    names = short_names(_grid_keys(study))
    axes = []
    if len(study.recipes) > 1:
        axes.append("recipe")
    if len(study.cells) > 1:
        axes.append("cell")
    axes += [names[keys_of(line)[0]] for line, values in study.grid.items() if len(values) > 1]
    return tuple(axes)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Dotted key -> its last part.

    The complete key, where two end alike or the last part is the name of another axis.
    """
    ends = [key.rpartition(".")[2] for key in keys]
    ambiguous = {end for end in ends if ends.count(end) > 1} | {"recipe", "cell"}
    return {key: key if end in ambiguous else end for key, end in zip(keys, ends, strict=True)}


def _short(value: Any) -> str:
    if isinstance(value, list) and value:
        return "+".join(map(str, value))
    return as_text(value)


def marked(texts: Sequence[str], path: tuple[str, ...], marks: Marks) -> list[MarkedOverride]:
    """Overrides with their places: a mapping has a mark for each key, a list for each item."""
    found = []
    for i, text in enumerate(texts):
        by_key = (*path, text.partition("=")[0])
        mark = marks[by_key] if by_key in marks else mark_of((*path, str(i)), marks)
        found.append((text, mark))
    return found


def _file_next_to(recipe: str, study: Path) -> str:
    """The recipe's file in the folder of the study, where there is none at the path itself."""
    own = study.parent / recipe
    if recipe.endswith(".yaml") and not Path(recipe).is_file() and own.is_file():
        return str(own)
    return recipe
