"""A table of the paper as data: what it prints, and which run makes each number. Read as strictly as a recipe.

A run is a recipe under a short name; a row says which method is put on it; a column says which score of which run it
shows. A base is a folder of recipes of the same names, so another one can stand in for the paper's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from lorakit.config import Config
from lorakit.errors import RecipeError, did_you_mean
from lorakit.recipe.load import (
    COMMAND_LINE,
    TABLES,
    Loaded,
    assemble,
    find,
    listing,
    names,
    read_extended,
    shipped,
    validate,
)  # fmt: skip
from lorakit.recipe.problems import describe, mark_of
from lorakit.recipe.schema import Published, Recipe
from lorakit.recipe.source import Mark, Marks, read
from lorakit.recipe.study import Cell, Overrides, Plan, Study, as_override, marked

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
    params: str
    """The number of trainable parameters as printed."""
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
    """Where the printed number is not what the method has: what it has on the paper's base."""
    misfit: str = ""
    """Why."""

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


@dataclass(frozen=True)
class Reproduction:
    """What was chosen of a table, as a plan of runs."""

    name: str
    table: PaperTable
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    plan: Plan
    cells: Mapping[tuple[str, str], Cell]
    """(row, run) -> what makes it."""
    another_base: str | None
    limit: int | None = None
    absent: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(row, run) -> why there is no recipe for it."""
    same: Mapping[str, str] = field(default_factory=dict)
    """Row that was left out -> the earlier row whose runs are the same on this base."""

    @property
    def comparable(self) -> bool:
        """Whether ours may stand beside the printed numbers."""
        return self.another_base is None and self.limit is None

    def run_of(self, column: str) -> str:
        return self.table.columns[column].run or column


def table_names() -> list[str]:
    """Every table, in the paper's order."""
    files = (shipped("recipes") / TABLES).glob("*.yaml")
    return sorted((file.stem for file in files), key=lambda name: (len(name), name))


def base_names() -> list[str]:
    """Every base that can stand in."""
    return sorted(file.stem for file in (shipped("recipes") / TABLES / BASES).glob("*.yaml"))


def load_table(
    name: str, base: str | None = None, rows: Sequence[str] = (), columns: Sequence[str] = (), seeds: int | None = None,
    limit: int | None = None, overrides: Sequence[str] = (),
) -> Reproduction:  # fmt: skip
    """The runs that make that table, or some rows (by name or method) and columns of it.

    base: what stands in for the paper's. seeds: the first so many. limit: rows of every split. overrides: of every
    run, last. RecipeError lists every problem.
    """
    table, marks = read_table(name)
    stand_in = read_base(base) if base else None
    chosen = _columns(table, columns)
    makers = list(dict.fromkeys(table.columns[c].run or c for c in chosen if table.columns[c].metric))
    made = _Maker(table, marks, stand_in, seeds, limit, overrides)
    cells, absent = {}, {}
    for row in _rows(table, rows):
        for run in makers:
            built = made.cell(row, run)
            (absent if isinstance(built, str) else cells)[row, run] = built
    if made.problems:
        raise RecipeError(listing(mark_of((), marks).file, list(made.problems)))
    if stand_in and not cells:
        first = next(iter(absent.values()))
        raise RecipeError(f"the base {base!r} is none for {name}: there is {first}")
    same = _same(_rows(table, rows), makers, cells) if stand_in else {}
    kept = tuple(row for row in _rows(table, rows) if row not in same)
    cells = {(row, run): cell for (row, run), cell in cells.items() if row in kept}
    path = shipped("recipes") / TABLES / f"{name}.yaml"
    study = Study(about=table.about, recipes=tuple(run.recipe for run in table.runs.values()))
    plan = Plan("-".join([name, *([base] if base else [])]), path, study, tuple(cells.values()), ())
    another = stand_in.about if stand_in else table.another_base
    return Reproduction(name, table, kept, chosen, plan, cells, another, limit, absent, same)


@cache
def read_table(name: str) -> tuple[PaperTable, Marks]:
    """The file of that table, and where each of its values stands."""
    path = _file(name, "table", table_names(), shipped("recipes") / TABLES)
    data, marks = read(path)
    sections: dict[str, Any] = {"": PaperTable}
    for key, part in (("runs", Run), ("columns", Column), ("rows", PaperRow)):
        sections |= {f"{key}.{entry}": part for entry in data.get(key) or ()}
    try:
        table = PaperTable.model_validate(data)
    except ValidationError as error:
        raise RecipeError(listing(mark_of((), marks).file, describe(error, (), marks, sections))) from None
    if problems := list(_crossed(table, marks)):
        raise RecipeError(listing(mark_of((), marks).file, problems))
    return table, marks


def read_base(name: str) -> StandIn:
    """The base of that name, to stand in for the paper's."""
    data, marks = read(_file(name, "base", base_names(), shipped("recipes") / TABLES / BASES))
    try:
        return StandIn.model_validate(data)
    except ValidationError as error:
        raise RecipeError(listing(mark_of((), marks).file, describe(error, (), marks, {"": StandIn}))) from None


def _file(name: str, what: str, known: Sequence[str], folder: Path) -> Path:
    if name not in known:
        raise RecipeError(f"no {what} {name!r}{did_you_mean(name, known)} (there are: {', '.join(known)})")
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


def _columns(table: PaperTable, wanted: Sequence[str]) -> tuple[str, ...]:
    for name in wanted:
        if name not in table.columns:
            raise _no("column", name, table.columns)
    return tuple(wanted) or tuple(table.columns)


def _rows(table: PaperTable, wanted: Sequence[str]) -> list[str]:
    """In the table's order; a method's name is all its rows."""
    methods = {row.method_name for row in table.rows.values()}
    for name in wanted:
        if name not in table.rows and name not in methods:
            raise _no("row", name, dict.fromkeys([*table.rows, *sorted(methods)]))
    return [key for key, row in table.rows.items() if not wanted or key in wanted or row.method_name in wanted]


def _no(what: str, name: str, known: Iterable[str]) -> RecipeError:
    return RecipeError(f"no {what} {name!r}{did_you_mean(name, known)} (there are: {', '.join(known)})")


def _same(rows: Sequence[str], runs: Sequence[str], cells: Mapping[tuple[str, str], Cell]) -> dict[str, str]:
    """Rows that are the same runs as an earlier one: on one base, a method stands in several rows."""
    seen: dict[tuple[str, ...], str] = {}
    found = {}
    for row in rows:
        what = tuple(_identity(cells[row, run].loaded) if (row, run) in cells else "" for run in runs)
        if any(what) and what in seen:
            found[row] = seen[what]
        seen.setdefault(what, row)
    return found


def _identity(loaded: Loaded) -> str:
    plain = {k: v for k, v in loaded.recipe.plain().items() if k not in ("seeds", "expect", "about")}
    return json.dumps({**plain, "name": loaded.name}, sort_keys=True)


class _Maker:
    """Makes the cells of one table, and gathers what is wrong with them."""

    def __init__(
        self, table: PaperTable, marks: Marks, base: StandIn | None, seeds: int | None, limit: int | None,
        overrides: Sequence[str],
    ):  # fmt: skip
        self.table, self.marks, self.base = table, marks, base
        self.seeds, self.limit, self.overrides = seeds, limit, overrides
        self.known = frozenset(names())
        self.files: dict[str, tuple[Path, dict[str, Any], Marks, Recipe]] = {}
        self.problems: dict[str, None] = {}

    def cell(self, row: str, run: str) -> Cell | str:
        """Or why there is none."""
        of = self.table.rows[row]
        folder = self.base.folder if self.base else of.folder
        recipe = "/".join(filter(None, [folder, self.table.runs[run].recipe]))
        if recipe not in self.known:
            return f"no recipe {recipe}"
        given = [*self._given(row, run, recipe), *((text, COMMAND_LINE) for text in self.overrides)]
        try:
            loaded = self._build(recipe, given)
            if self.limit:
                given += [(text, COMMAND_LINE) for text in _limits(loaded.recipe, self.limit)]
                loaded = self._build(recipe, given)
        except RecipeError as error:
            lines = str(error).splitlines()
            self.problems.update(dict.fromkeys(line.strip() for line in (lines[1:] or lines)))
            return "its recipe has mistakes"
        label = f"{of.label} {of.params}, {run}"
        return Cell(label, recipe, tuple(text for text, _ in given), loaded, {"row": row, "run": run})

    def _build(self, recipe: str, given: Sequence[tuple[str, Mark]]) -> Loaded:
        path, data, marks, _ = self._file(recipe)
        return assemble(path, deepcopy(data), dict(marks), [text for text, _ in given], [mark for _, mark in given])

    def _file(self, recipe: str) -> tuple[Path, dict[str, Any], Marks, Recipe]:
        """Read once: a table has a hundred cells of ten recipes."""
        if recipe not in self.files:
            path = find(recipe)
            data, marks = read_extended(path)
            self.files[recipe] = path, data, marks, validate(deepcopy(data), marks)
        return self.files[recipe]

    def _given(self, row: str, run: str, recipe: str) -> list[tuple[str, Mark]]:
        """The method first, then what the run, the row, and the row's run or the base's method set."""
        of, at = self.table.rows[row], ("rows", row)
        original = self._file(recipe)[3]
        texts = method_overrides(of.method, original)
        given = [(text, mark_of((*at, "method"), self.marks)) for text in texts]
        given += marked(self.table.runs[run].set, ("runs", run, "set"), self.marks)
        own = marked(of.set, (*at, "set"), self.marks)
        own += marked(of.sets.get(run, ()), (*at, "sets", run), self.marks)
        given += [(text, mark) for text, mark in own if self.base is None or text.startswith("method.")]
        if self.base is not None:
            texts = (*self.base.methods.get(of.method_name, ()), *self.base.rows.get(row, ()))
            given += [(text, Mark(f"base {self.base.folder}")) for text in texts]
        n = self.seeds or (None if self.base else self.table.seeds)
        if n is not None:
            seeds = original.seeds[:n] if len(original.seeds) >= n else range(n)
            given.append((f"seeds={list(seeds)}", COMMAND_LINE))
        return given


def method_overrides(method: str | Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Puts `method` on the recipe; where it has that method already, only the values that are given are changed."""
    values = {"name": method} if isinstance(method, str) else dict(method)
    if values.get("name") == recipe.method.name:
        return [as_override(f"method.{key}", value) for key, value in values.items() if key != "name"]
    return [as_override("method", values), "expect={}"]


def _limits(recipe: Recipe, limit: int) -> list[str]:
    task = recipe.task
    splits = (task.train_split, *task.eval_splits, *task.final_splits)
    return [f"data.limit.{split}={min(limit, recipe.data.limit.get(split, limit))}" for split in splits]
