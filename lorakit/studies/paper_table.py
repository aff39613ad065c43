"""A table of the paper as data: the printed numbers, and the run that reproduces each of them.

A run is a recipe under a short name, a row is a method on a base, and a column is a score of a run.
A base is a folder of recipes with the same names, so another one can replace the paper's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from lorakit.config import Config
from lorakit.errors import RecipeError, did_you_mean
from lorakit.recipe.load import TABLES, listing, shipped
from lorakit.recipe.problems import describe, mark_of
from lorakit.recipe.schema import Published
from lorakit.recipe.source import Marks, read_yaml
from lorakit.studies.schema import Overrides

BASES = "bases"
_PRINTED = re.compile(r"(\d*\.?\d+)\s*±\s*(\d*\.?\d+)")


def _printed(value: Any) -> Any:
    """`87.5±.3` as the paper prints it; a number alone has no spread."""
    if isinstance(value, str) and (found := _PRINTED.fullmatch(value)):
        return {"value": float(found[1]), "spread": float(found[2])}
    if value is None or isinstance(value, (dict, str)):
        return value
    return {"value": value}


Printed = Annotated[Published, BeforeValidator(_printed)]


class PaperRun(Config):
    """The training for one or several columns."""

    recipe: str
    """Its name without the folder of the base."""
    set: Overrides = ()
    """Overrides for this run in every row, and on every base."""


class PaperColumn(Config):
    """One column of numbers."""

    title: str
    run: str | None = None
    """The run whose score it shows; by default the run with the column's name."""
    metric: str | None = None
    """`split/metric`; without it, lorakit does not measure the column."""
    average: bool = False
    """Whether it is the average of all columns that have a metric."""
    scale: float = 1.0
    """Our score times this is in the paper's unit."""
    spread: float | None = None
    """The spread, where the paper prints one for the entire column."""


class PaperRow(Config):
    """One row: a method on a base."""

    label: str
    """As printed."""
    params: str | None = None
    """The number of trainable parameters as printed; null where it is not printed."""
    method: str | dict[str, Any]
    """As in a recipe. Where the recipe has this method, its other values stay."""
    folder: str = ""
    """The folder of its base's recipes, in recipes/."""
    copied: bool = False
    """`*`: the authors took the numbers from earlier work."""
    restricted: bool = False
    """`†`: run in the setup of Houlsby et al."""
    values: tuple[Printed | None, ...] = Field(strict=False)
    """In the order of the columns."""
    set: Overrides = ()
    """Overrides for every run of this row; on another base, only those of `method` apply."""
    sets: dict[str, Overrides] = Field(default_factory=dict)
    """Run -> overrides for that run of this row; on another base likewise."""
    trainable: int | None = None
    """The method's trainable parameters on the paper's base, where they differ from the printed
    number or none is printed."""
    misfit: str = ""
    """Why they differ."""

    @property
    def name(self) -> str:
        return " ".join(filter(None, [self.label, self.params]))

    @property
    def marks(self) -> str:
        """The paper's footnote marks."""
        return ("*" if self.copied else "") + ("†" if self.restricted else "")

    @property
    def marked_name(self) -> str:
        return " ".join(filter(None, [self.label + self.marks, self.params]))

    @property
    def method_name(self) -> str:
        if isinstance(self.method, str):
            return self.method
        return str(self.method.get("name", ""))


class PaperTable(Config):
    """A table of the paper."""

    about: str
    statistic: Literal["median", "mean"]
    """Over the seeds, each at its best epoch."""
    seeds: int | None = Field(default=None, gt=0)
    """How many the paper has; by default the seeds of each recipe."""
    another_base: str | None = None
    """The base of the recipes, where the paper's is not public. Nothing is compared then."""
    runs: dict[str, PaperRun]
    columns: dict[str, PaperColumn]
    rows: dict[str, PaperRow]

    def run_of(self, column: str) -> str:
        """The name of the run whose score the column shows."""
        return self.columns[column].run or column


class StandIn(Config):
    """A base that replaces the paper's: a folder with recipes of the same names."""

    about: str
    folder: str
    methods: dict[str, Overrides] = Field(default_factory=dict)
    """Method -> overrides, such as its learning rate on this base."""
    rows: dict[str, Overrides] = Field(default_factory=dict)
    """Row -> overrides, where this base needs other numbers than in the method's other rows."""


def table_names() -> list[str]:
    """The names of all tables, in the paper's order."""
    files = (shipped("recipes") / TABLES).glob("*.yaml")
    return sorted((file.stem for file in files), key=lambda name: (len(name), name))


def base_names() -> list[str]:
    """The names of all bases that can replace the paper's."""
    return sorted(file.stem for file in (shipped("recipes") / TABLES / BASES).glob("*.yaml"))


def table_file(name: str) -> Path:
    """The file of a table. RecipeError: there is none; it suggests the nearest name."""
    return _file(name, "table", table_names(), shipped("recipes") / TABLES)


@cache
def load_paper_table(name: str) -> tuple[PaperTable, Marks]:
    """The table of that name, and the places of its values in its file."""
    data, marks = read_yaml(table_file(name))
    sections: dict[str, type[BaseModel]] = {"": PaperTable}
    for key, part in (("runs", PaperRun), ("columns", PaperColumn), ("rows", PaperRow)):
        sections |= {f"{key}.{entry}": part for entry in data.get(key) or ()}
    try:
        table = PaperTable.model_validate(data)
    except ValidationError as error:
        raise _invalid(marks, describe(error, marks, sections)) from None
    problems = list(_cross_problems(table, marks))
    if problems:
        raise _invalid(marks, problems)
    return table, marks


def load_base(name: str) -> StandIn:
    """The base of that name. RecipeError: there is none."""
    data, marks = read_yaml(_file(name, "base", base_names(), shipped("recipes") / TABLES / BASES))
    try:
        return StandIn.model_validate(data)
    except ValidationError as error:
        raise _invalid(marks, describe(error, marks, {"": StandIn})) from None


def unknown_name(what: str, name: str, known: Iterable[str]) -> RecipeError:
    """The error for a name that does not exist, with the nearest name and all names."""
    names = list(known)
    return RecipeError(
        f"no {what} {name!r}{did_you_mean(name, names)} (there are: {', '.join(names)})"
    )


def _file(name: str, what: str, known: Sequence[str], folder: Path) -> Path:
    if name not in known:
        raise unknown_name(what, name, known)
    return folder / f"{name}.yaml"


def _invalid(marks: Marks, problems: Sequence[str]) -> RecipeError:
    return RecipeError(listing(mark_of((), marks).file, list(problems)))


def _cross_problems(table: PaperTable, marks: Marks) -> Iterable[str]:
    """Where parts of a table do not fit each other."""
    for key, column in table.columns.items():
        run = table.run_of(key)
        if column.metric and run not in table.runs:
            mark = mark_of(("columns", key), marks)
            yield f"{mark}: columns.{key}: no run {run!r}{did_you_mean(run, table.runs)}"
    columns = len(table.columns)
    for key, row in table.rows.items():
        mark = mark_of(("rows", key), marks)
        if len(row.values) != columns:
            yield f"{mark}: rows.{key}: {len(row.values)} values for {columns} columns"
        for run in row.sets:
            if run not in table.runs:
                yield f"{mark}: rows.{key}.sets: no run {run!r}{did_you_mean(run, table.runs)}"
