"""A table of the paper as data: what it prints, and which run makes each number. Read as strictly as a recipe.

A run is a recipe under a short name; a row says which method is put on it; a column says which score of which run it
shows. A base is a folder of recipes of the same names, so another one can stand in for the paper's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from lorakit.config import Config
from lorakit.errors import RecipeError, did_you_mean
from lorakit.recipe.load import TABLES, listing, shipped
from lorakit.recipe.problems import describe, mark_of
from lorakit.recipe.schema import Published
from lorakit.recipe.source import Marks, read_yaml
from lorakit.studies.grid import Overrides

BASES = "bases"
_PRINTED = re.compile(r"(\d*\.?\d+)\s*±\s*(\d*\.?\d+)")


def _printed(value: Any) -> Any:
    """`87.5±.3` as the paper has it; a bare number has no spread."""
    if isinstance(value, str) and (found := _PRINTED.fullmatch(value)):
        return {"value": float(found[1]), "spread": float(found[2])}
    return value if value is None or isinstance(value, (dict, str)) else {"value": value}


Printed = Annotated[Published, BeforeValidator(_printed)]


class Run(Config):
    """What is trained for one or several columns."""

    recipe: str
    """Its name, without the folder of the base."""
    set: Overrides = ()
    """Of this run in every row, and on every base."""


class Column(Config):
    """One column of numbers."""

    title: str
    run: str | None = None
    """The run that it is read from; left out, the one of the column's own name."""
    metric: str | None = None
    """`split/metric`; left out, lorakit does not measure it."""
    average: bool = False
    """Of all columns that have a metric."""
    scale: float = 1.0
    """Ours times this is as the paper prints it."""
    spread: float | None = None
    """Where the paper prints one spread for a whole column."""


class PaperRow(Config):
    """One row: a method on a base."""

    label: str
    """As printed."""
    params: str | None = None
    """The number of trainable parameters as printed; null where it is not."""
    method: str | dict[str, Any]
    """As in a recipe. A method that the recipe has already keeps the recipe's other values."""
    folder: str = ""
    """Of the recipes of its base, under recipes/."""
    copied: bool = False
    """`*`: the authors took the numbers from earlier work."""
    restricted: bool = False
    """`†`: run in the setup of Houlsby et al."""
    values: tuple[Printed | None, ...] = Field(strict=False)
    """In the order of the columns."""
    set: Overrides = ()
    """Of every run of this row; on another base only what is of `method`."""
    sets: dict[str, Overrides] = Field(default_factory=dict)
    """Run -> overrides of that run alone, likewise."""
    trainable: int | None = None
    """What the method has on the paper's base, where that is not the printed number, or none is printed."""
    misfit: str = ""
    """Why it is not the printed number."""

    @property
    def name(self) -> str:
        return " ".join(filter(None, [self.label, self.params]))

    @property
    def marks(self) -> str:
        return ("*" if self.copied else "") + ("†" if self.restricted else "")

    @property
    def method_name(self) -> str:
        return self.method if isinstance(self.method, str) else str(self.method.get("name", ""))


class PaperTable(Config):
    """A table of the paper."""

    about: str
    statistic: Literal["median", "mean"]
    """Over the seeds, each with its best epoch."""
    seeds: int | None = Field(default=None, gt=0)
    """How many the paper has; left out, the recipe's own are run."""
    another_base: str | None = None
    """What the recipes train where the paper's base cannot be had: nothing is then compared."""
    runs: dict[str, Run]
    columns: dict[str, Column]
    rows: dict[str, PaperRow]


class StandIn(Config):
    """A base that stands in for the paper's: its recipes are in a folder, under the same names."""

    about: str
    folder: str
    methods: dict[str, Overrides] = Field(default_factory=dict)
    """Method -> overrides, such as its learning rate on this base."""
    rows: dict[str, Overrides] = Field(default_factory=dict)
    """Row -> overrides, where this base needs other numbers than the method's other rows."""


def table_names() -> list[str]:
    """Every table, in the paper's order."""
    files = (shipped("recipes") / TABLES).glob("*.yaml")
    return sorted((file.stem for file in files), key=lambda name: (len(name), name))


def base_names() -> list[str]:
    """Every base that can stand in."""
    return sorted(file.stem for file in (shipped("recipes") / TABLES / BASES).glob("*.yaml"))


def table_file(name: str) -> Path:
    """RecipeError, with the nearest name, where there is no such table."""
    return _file(name, "table", table_names(), shipped("recipes") / TABLES)


@cache
def read_table(name: str) -> tuple[PaperTable, Marks]:
    """The file of that table, and where each of its values stands."""
    data, marks = read_yaml(table_file(name))
    sections: dict[str, Any] = {"": PaperTable}
    for key, part in (("runs", Run), ("columns", Column), ("rows", PaperRow)):
        sections |= {f"{key}.{entry}": part for entry in data.get(key) or ()}
    try:
        table = PaperTable.model_validate(data)
    except ValidationError as error:
        raise RecipeError(
            listing(mark_of((), marks).file, describe(error, (), marks, sections))
        ) from None
    if problems := list(_crossed(table, marks)):
        raise RecipeError(listing(mark_of((), marks).file, problems))
    return table, marks


def read_base(name: str) -> StandIn:
    """The base of that name, to stand in for the paper's."""
    data, marks = read_yaml(_file(name, "base", base_names(), shipped("recipes") / TABLES / BASES))
    try:
        return StandIn.model_validate(data)
    except ValidationError as error:
        raise RecipeError(
            listing(mark_of((), marks).file, describe(error, (), marks, {"": StandIn}))
        ) from None


def _file(name: str, what: str, known: Sequence[str], folder: Path) -> Path:
    if name not in known:
        raise RecipeError(
            f"no {what} {name!r}{did_you_mean(name, known)} (there are: {', '.join(known)})"
        )
    return folder / f"{name}.yaml"


def _crossed(table: PaperTable, marks: Marks) -> Iterable[str]:
    """What one part of a table says of another."""
    for key, column in table.columns.items():
        run = column.run or key
        if column.metric and run not in table.runs:
            yield f"{mark_of(('columns', key), marks)}: columns.{key}: no run {run!r}{did_you_mean(run, table.runs)}"
    for key, row in table.rows.items():
        at = mark_of(("rows", key), marks)
        if len(row.values) != len(table.columns):
            yield f"{at}: rows.{key}: {len(row.values)} values, and there are {len(table.columns)} columns"
        for run in row.sets:
            if run not in table.runs:
                yield f"{at}: rows.{key}.sets: no run {run!r}{did_you_mean(run, table.runs)}"
