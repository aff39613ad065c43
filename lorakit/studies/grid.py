"""A study: recipes x cells x grid, each with all its seeds. Read as strictly as a recipe, and every cell is checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
)

from lorakit.config import Config
from lorakit.errors import RecipeError, did_you_mean
from lorakit.recipe.load import COMMAND_LINE, STUDIES, Loaded, build, find, listing, shipped
from lorakit.recipe.naming import checked_name
from lorakit.recipe.problems import describe, mark_of
from lorakit.recipe.schema import Seed
from lorakit.recipe.source import Mark, Marks, read_yaml, scalar

MOST_CELLS = 1000


def _overrides(value: Any) -> Any:
    """`{method.r: 4}` says `[method.r=4]`."""
    return [as_override(key, v) for key, v in value.items()] if isinstance(value, dict) else value


def as_override(key: str, value: Any) -> str:
    """`key=value` that sets the key to that value."""
    return f"{key}={_text(value)}"


def _text(value: Any) -> str:
    """As an override has it: it reads back to the same value."""
    if (
        isinstance(value, str)
        and value[:1] not in tuple("[{'\"")
        and scalar(value) == value
        and value == value.strip()
    ):
        return value
    return json.dumps(value, ensure_ascii=False)


Overrides = Annotated[tuple[str, ...], BeforeValidator(_overrides), Field(strict=False)]
"""As on the command line: a list of `key=value` and `~key`, or a mapping of keys to values."""


def _one_line(value: str) -> str:
    """A newline would end the `#SBATCH` line, and what follows it would be run."""
    if not value.strip() or not value.isprintable():
        raise ValueError(f"{value!r} should be one line of printable text")
    return value


OneLine = Annotated[str, AfterValidator(_one_line)]
OptionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


class Slurm(Config):
    """What one job asks Slurm for; what is left out is the cluster's default."""

    partition: OneLine | None = None
    account: OneLine | None = None
    qos: OneLine | None = None
    constraint: OneLine | None = None
    time: int = Field(default=60, gt=0)
    """Minutes. A job that reaches them writes a checkpoint and is queued again."""
    gpus_per_node: int | None = Field(default=None, ge=0)
    """A run takes all that it sees, one process each."""
    cpus_per_task: int | None = Field(default=None, gt=0)
    mem_gb: float | None = Field(default=None, gt=0)
    setup: tuple[str, ...] = Field(default=(), strict=False)
    """Shell lines before the run, such as `module load cuda`."""
    extra: dict[OptionName, OneLine | int | bool] = Field(default_factory=dict)
    """Any other option of sbatch, without its dashes."""


class Where(Config):
    """What some of the runs have of their own, where that is no product."""

    at: dict[str, Any] = Field(min_length=1)
    """Axis -> where a run stands on it, as the table of the study names the two; all must hold."""
    set: Overrides


class Study(Config):
    """Many runs: every recipe with every cell and every point of the grid."""

    about: str = ""
    recipes: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda v: [v] if isinstance(v, str) else v),
        Field(strict=False, min_length=1),
    ]
    """Names or files, as `lorakit train` takes them; a file is looked for beside the study too."""
    set: Overrides = ()
    """Overrides of every run."""
    cells: dict[str, Overrides] = Field(default_factory=dict)
    """Name -> overrides: what belongs together and is no product."""
    grid: dict[str, Annotated[tuple[Any, ...], Field(strict=False)]] = Field(default_factory=dict)
    """Key -> its values; every combination is run. Keys that go together share a line: `a, b: [[1, 2], [2, 4]]`."""
    where: tuple[Where, ...] = Field(default=(), strict=False)
    """Overrides of some runs alone, after the others."""
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] | None = None
    """Of every run; left out, each recipe's own."""
    slurm: Slurm = Slurm()

    @field_validator("grid", mode="before")
    @classmethod
    def _lists(cls, grid: Any) -> Any:
        for key, values in grid.items() if isinstance(grid, dict) else ():
            if not isinstance(values, list) or not values:
                raise ValueError(f"{key}: {values!r} should be a list of values: [{_text(values)}]")
            n = len(_keys(key))
            for value in values if n > 1 else ():
                if not isinstance(value, list) or len(value) != n:
                    raise ValueError(f"{key}: {value!r} is no list of {n} values, one for each key")
        return grid


@dataclass(frozen=True)
class Cell:
    """One run: a recipe with overrides and all its seeds."""

    label: str
    recipe: str
    overrides: tuple[str, ...]
    loaded: Loaded
    point: dict[str, Any]
    """Axis -> where this run stands on it."""


@dataclass(frozen=True)
class Plan:
    """A study that was read, and its runs in order."""

    name: str
    path: Path
    study: Study
    cells: tuple[Cell, ...]
    axes: tuple[str, ...]
    """What differs between runs; keys that go together are one axis, by the first of them."""


def load_study(name_or_path: str, overrides: Sequence[str] = ()) -> Plan:
    """The study of that file or shipped name. RecipeError lists every problem of it and of its runs.

    overrides: `key=value` and `~key` of every run, after the study's own.
    """
    path = find_study(name_or_path)
    name = checked_name(path.stem, path)
    data, marks = read_yaml(path)
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        parts = {f"where.{i}": Where for i in range(len(data.get("where") or ()))}
        sections: dict[str, type[BaseModel]] = {"": Study, "slurm": Slurm, **parts}
        raise RecipeError(
            listing(mark_of((), marks).file, describe(error, (), marks, sections))
        ) from None
    count = len(study.recipes) * max(1, len(study.cells)) * prod(map(len, study.grid.values()))
    if count > MOST_CELLS:
        raise RecipeError(
            f"{mark_of(('grid',), marks)}: {count:,} runs, and {MOST_CELLS:,} are the most; cut an axis"
        )
    return Plan(name, path, study, _cells(study, path, marks, overrides), _axes(study))


def study_names() -> list[str]:
    """Every shipped study."""
    return sorted(file.stem for file in (shipped("recipes") / STUDIES).glob("*.yaml"))


def find_study(name_or_path: str) -> Path:
    """A file of that path, else the shipped study of that name."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    name = name_or_path.removeprefix("recipes/").removeprefix(f"{STUDIES}/").removesuffix(".yaml")
    if name in study_names():
        return shipped("recipes") / STUDIES / f"{name}.yaml"
    raise RecipeError(
        f"no study file {name_or_path!r}, and no shipped study {name!r}{did_you_mean(name, study_names())} "
        f"(there are: {', '.join(study_names())})"
    )


def _cells(study: Study, path: Path, marks: Marks, more: Sequence[str]) -> tuple[Cell, ...]:
    cells: list[Cell] = []
    problems: dict[str, None] = {}  # in order, each once: a wrong key is wrong in every run
    same: dict[str, str] = {}
    unmet = set(range(len(study.where)))
    for label, recipe, at, point, given in _points(study, marks):
        for i, only in enumerate(study.where):
            if all(key in point and point[key] == value for key, value in only.at.items()):
                given += marked(only.set, ("where", str(i), "set"), marks)
                unmet.discard(i)
        given += [(text, COMMAND_LINE) for text in more]
        overrides, where = tuple(text for text, _ in given), [mark for _, mark in given]
        file = _beside(recipe, path)
        try:
            found = find(file)
        except RecipeError as error:
            problems[f"{at}: recipes: {error}"] = None
            continue
        try:
            loaded = build(found, overrides, where)
        except RecipeError as error:
            lines = str(error).splitlines()
            problems.update(dict.fromkeys(line.strip() for line in (lines[1:] or lines)))
            continue
        known = json.dumps(
            {**loaded.recipe.plain(), "seeds": 0, "name": loaded.name}, sort_keys=True
        )
        if known in same:
            problems[
                f"{at.file}: {label!r} and {same[known]!r} are the same run; leave one out"
            ] = None
        same[known] = label
        cells.append(Cell(label, file, overrides, loaded, point))
    for i in sorted(unmet):
        problems[
            f"{mark_of(('where', str(i)), marks)}: where: no run is at {json.dumps(study.where[i].at)}"
        ] = None
    if problems:
        raise RecipeError(listing(mark_of((), marks).file, list(problems)))
    return tuple(cells)


def _points(
    study: Study, marks: Marks
) -> Iterator[tuple[str, str, Mark, dict[str, Any], list[tuple[str, Mark]]]]:
    """(label, recipe, where it is named, point, overrides with where each stands)"""
    common = marked(study.set, ("set",), marks)
    if study.seeds is not None:
        common.append((f"seeds={list(study.seeds)}", mark_of(("seeds",), marks)))
    named = {name: marked(texts, ("cells", name), marks) for name, texts in study.cells.items()}
    names = short_names([key for line in study.grid for key in _keys(line)])
    for (i, recipe), cell, values in product(
        enumerate(study.recipes), named or [None], product(*(study.grid.values()))
    ):
        point: dict[str, Any] = {"recipe": recipe} if len(study.recipes) > 1 else {}
        given = list(common)
        if cell is not None:
            point["cell"] = cell
            given += named[cell]
        label = [str(value) for value in point.values()]
        for line, value in zip(study.grid, values, strict=True):
            keys = _keys(line)
            for key, part in zip(keys, value if len(keys) > 1 else [value], strict=True):
                point[names[key]] = part
                given.append((f"{key}={_text(part)}", mark_of(("grid", line), marks)))
                label.append(f"{names[key]}={_short(part)}")
        yield ", ".join(label) or recipe, recipe, mark_of(("recipes", str(i)), marks), point, given


def _axes(study: Study) -> tuple[str, ...]:
    names = short_names([key for line in study.grid for key in _keys(line)])
    grid = [names[_keys(line)[0]] for line, values in study.grid.items() if len(values) > 1]
    return (
        *(["recipe"] if len(study.recipes) > 1 else []),
        *(["cell"] if len(study.cells) > 1 else []),
        *grid,
    )


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Dotted key -> its last part, or the whole where two end alike or it is the name of another axis."""
    last = [key.rpartition(".")[2] for key in keys]
    return {
        key: key if last.count(end) > 1 or end in ("recipe", "cell") else end
        for key, end in zip(keys, last, strict=True)
    }


def _keys(line: str) -> list[str]:
    return [key.strip() for key in line.split(",")]


def _short(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) and value else _text(value)


def marked(texts: Sequence[str], path: tuple[str, ...], marks: Marks) -> list[tuple[str, Mark]]:
    """Overrides with where each stands: a mapping has a mark per key, a list one per place."""
    known = (((*path, text.partition("=")[0]), (*path, str(i))) for i, text in enumerate(texts))
    return [
        (text, marks[a] if a in marks else mark_of(b, marks))
        for text, (a, b) in zip(texts, known, strict=True)
    ]


def _beside(recipe: str, study: Path) -> str:
    own = study.parent / recipe
    return (
        str(own)
        if recipe.endswith(".yaml") and not Path(recipe).is_file() and own.is_file()
        else recipe
    )
