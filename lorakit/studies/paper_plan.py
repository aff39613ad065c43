"""The plan of a reproduction: rows x runs of a table of the paper, each a recipe with overrides."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorakit.errors import RecipeError
from lorakit.recipe.load import (
    COMMAND_LINE,
    LoadedRecipe,
    assemble,
    find,
    listing,
    names,
    read_extended,
    validate,
)
from lorakit.recipe.problems import mark_of
from lorakit.recipe.schema import Recipe
from lorakit.recipe.source import Mark, Marks
from lorakit.studies.paper_table import (
    PaperTable,
    StandIn,
    load_base,
    load_paper_table,
    table_file,
    unknown_name,
)
from lorakit.studies.plan import Cell, MarkedOverride, Plan, marked, problems_of
from lorakit.studies.schema import Study, as_override

CellKey = tuple[str, str]
"""(row, run)"""


@dataclass(frozen=True)
class Selection:
    """The part of a table to reproduce, and changes to its runs."""

    base: str | None = None
    """A base that replaces the paper's."""
    rows: Sequence[str] = ()
    """Rows by name or method; by default all."""
    columns: Sequence[str] = ()
    """By default all."""
    seeds: int | None = None
    """The number of seeds of each run; by default the paper's."""
    limit: int | None = None
    """The most examples of each split; by default all. Nothing is compared with a limit."""
    overrides: Sequence[str] = ()
    """Overrides for every run, after all others."""


@dataclass(frozen=True)
class Reproduction:
    """The selected part of a table, as a plan of runs."""

    name: str
    table: PaperTable
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    plan: Plan
    cells: Mapping[CellKey, Cell]
    another_base: str | None
    limit: int | None = None
    absent: Mapping[CellKey, str] = field(default_factory=dict)
    """Why there is no recipe for a run."""
    same: Mapping[str, str] = field(default_factory=dict)
    """Row that was left out -> the earlier row that has the same runs on this base."""

    @property
    def comparable(self) -> bool:
        """Whether our numbers can be compared with the printed ones."""
        return self.another_base is None and self.limit is None


def load_reproduction(name: str, selection: Selection | None = None) -> Reproduction:
    """The runs that reproduce a table of the paper, or the selected part of it.

    RecipeError: it lists every problem.
    """
    selection = selection or Selection()
    table, marks = load_paper_table(name)
    base = load_base(selection.base) if selection.base else None
    rows = _rows(table, selection.rows)
    columns = _columns(table, selection.columns)
    measured = [column for column in columns if table.columns[column].metric]
    runs = list(dict.fromkeys(table.run_of(column) for column in measured))
    cells, absent = _Cells(table, marks, base, selection).load(rows, runs)
    if base and not cells:
        reason = next(iter(absent.values()))
        raise RecipeError(f"the base {selection.base!r} has no recipes for {name}: {reason}")
    same = _same_rows(rows, runs, cells) if base else {}
    kept = {key: cell for key, cell in cells.items() if key[0] not in same}
    study = Study(about=table.about, recipes=tuple(run.recipe for run in table.runs.values()))
    plan_name = f"{name}-{selection.base}" if selection.base else name
    return Reproduction(
        name=name,
        table=table,
        rows=tuple(row for row in rows if row not in same),
        columns=columns,
        plan=Plan(plan_name, table_file(name), study, tuple(kept.values()), ()),
        cells=kept,
        another_base=base.about if base else table.another_base,
        limit=selection.limit,
        absent=absent,
        same=same,
    )


def _columns(table: PaperTable, wanted: Sequence[str]) -> tuple[str, ...]:
    for name in wanted:
        if name not in table.columns:
            raise unknown_name("column", name, table.columns)
    return tuple(wanted) or tuple(table.columns)


def _rows(table: PaperTable, wanted: Sequence[str]) -> list[str]:
    """The rows in the table's order; the name of a method selects all its rows."""
    methods = {row.method_name for row in table.rows.values()}
    known = dict.fromkeys([*table.rows, *sorted(methods)])
    for name in wanted:
        if name not in known:
            raise unknown_name("row", name, known)
    return [
        key
        for key, row in table.rows.items()
        if not wanted or key in wanted or row.method_name in wanted
    ]


def _same_rows(
    rows: Sequence[str], runs: Sequence[str], cells: Mapping[CellKey, Cell]
) -> dict[str, str]:
    """Row -> the earlier row with the same runs.

    The paper's table has a method on several bases; on one base these rows are the same.
    """
    first: dict[tuple[str, ...], str] = {}
    found = {}
    for row in rows:
        made = [cells.get((row, run)) for run in runs]
        content = tuple(_content(cell.loaded) if cell else "" for cell in made)
        if any(content) and content in first:
            found[row] = first[content]
        first.setdefault(content, row)
    return found


def _content(loaded: LoadedRecipe) -> str:
    """What makes two runs the same; seeds, expected values and the description do not."""
    ignored = ("seeds", "expect", "about")
    plain = {key: value for key, value in loaded.recipe.plain().items() if key not in ignored}
    return json.dumps({**plain, "name": loaded.name}, sort_keys=True)


@dataclass(frozen=True)
class ReadRecipe:
    """A recipe file before any override."""

    path: Path
    data: dict[str, Any]
    marks: Marks
    recipe: Recipe


class _Cells:
    """Loads the cells of one table, and collects their problems."""

    def __init__(self, table: PaperTable, marks: Marks, base: StandIn | None, selection: Selection):
        self.table = table
        self.marks = marks
        self.base = base
        self.selection = selection
        self.known = frozenset(names())
        self.files: dict[str, ReadRecipe] = {}
        self.problems: dict[str, None] = {}

    def load(
        self, rows: Iterable[str], runs: Sequence[str]
    ) -> tuple[dict[CellKey, Cell], dict[CellKey, str]]:
        """The cells, and why others do not exist. RecipeError: it lists every problem."""
        cells: dict[CellKey, Cell] = {}
        absent: dict[CellKey, str] = {}
        for row in rows:
            for run in runs:
                recipe = self._recipe_name(row, run)
                if recipe not in self.known:
                    absent[row, run] = f"no recipe {recipe}"
                    continue
                try:
                    cells[row, run] = self._cell(row, run, recipe)
                except RecipeError as error:
                    self.problems.update(dict.fromkeys(problems_of(error)))
        if self.problems:
            raise RecipeError(listing(mark_of((), self.marks).file, list(self.problems)))
        return cells, absent

    def _recipe_name(self, row: str, run: str) -> str:
        folder = self.base.folder if self.base else self.table.rows[row].folder
        return "/".join(filter(None, [folder, self.table.runs[run].recipe]))

    def _cell(self, row: str, run: str, recipe: str) -> Cell:
        given = self._overrides(row, run, recipe)
        given += [(text, COMMAND_LINE) for text in self.selection.overrides]
        loaded = self._build(recipe, given)
        if self.selection.limit:
            # the splits are known only after all other overrides
            limits = _limits(loaded.recipe, self.selection.limit)
            given += [(text, COMMAND_LINE) for text in limits]
            loaded = self._build(recipe, given)
        label = f"{self.table.rows[row].name}, {run}"
        texts = tuple(text for text, _ in given)
        return Cell(label, recipe, texts, loaded, {"row": row, "run": run})

    def _build(self, recipe: str, given: Sequence[MarkedOverride]) -> LoadedRecipe:
        file = self._file(recipe)
        texts = [text for text, _ in given]
        marks = [mark for _, mark in given]
        return assemble(file.path, deepcopy(file.data), dict(file.marks), texts, marks)

    def _file(self, recipe: str) -> ReadRecipe:
        """The file is read once: a table has a hundred cells of ten recipes."""
        if recipe not in self.files:
            path = find(recipe)
            data, marks = read_extended(path)
            self.files[recipe] = ReadRecipe(path, data, marks, validate(deepcopy(data), marks))
        return self.files[recipe]

    def _overrides(self, row: str, run: str, recipe: str) -> list[MarkedOverride]:
        """Those of the method, the run, the row, the base, and the seeds, in this order."""
        of_row = self.table.rows[row]
        at = ("rows", row)
        original = self._file(recipe).recipe
        mark = mark_of((*at, "method"), self.marks)
        given = [(text, mark) for text in method_overrides(of_row.method, original)]
        given += marked(self.table.runs[run].set, ("runs", run, "set"), self.marks)
        own = marked(of_row.set, (*at, "set"), self.marks)
        own += marked(of_row.sets.get(run, ()), (*at, "sets", run), self.marks)
        if self.base is None:
            given += own
        else:
            given += [(text, mark) for text, mark in own if text.startswith("method.")]
            given += self._base_overrides(row)
        return given + self._seeds(original)

    def _base_overrides(self, row: str) -> list[MarkedOverride]:
        assert self.base is not None
        method = self.table.rows[row].method_name
        texts = (*self.base.methods.get(method, ()), *self.base.rows.get(row, ()))
        return [(text, Mark(f"base {self.base.folder}")) for text in texts]

    def _seeds(self, recipe: Recipe) -> list[MarkedOverride]:
        count = self.selection.seeds
        if count is None and self.base is None:
            count = self.table.seeds
        if count is None:
            return []
        enough = len(recipe.seeds) >= count
        seeds = recipe.seeds[:count] if enough else range(count)
        return [(f"seeds={list(seeds)}", COMMAND_LINE)]


def method_overrides(method: str | Mapping[str, Any], recipe: Recipe) -> list[str]:
    """The overrides that put `method` on the recipe.

    Where the recipe has that method, only the given values change.
    """
    values = {"name": method} if isinstance(method, str) else dict(method)
    if values.get("name") != recipe.method.name:
        return [as_override("method", values), "expect={}"]
    return [as_override(f"method.{key}", value) for key, value in values.items() if key != "name"]


def _limits(recipe: Recipe, limit: int) -> list[str]:
    task = recipe.task
    splits = (task.train_split, *task.eval_splits, *task.final_splits)
    limits = {split: min(limit, recipe.data.limit.get(split, limit)) for split in splits}
    return [f"data.limit.{split}={most}" for split, most in limits.items()]
