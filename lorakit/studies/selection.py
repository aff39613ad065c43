"""What is chosen of a table of the paper, as a plan of runs: rows x runs, each a recipe with overrides and seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorakit.errors import RecipeError, did_you_mean
from lorakit.recipe.load import (
    COMMAND_LINE,
    Loaded,
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
from lorakit.studies.grid import Cell, Plan, Study, as_override, marked
from lorakit.studies.paper import PaperTable, StandIn, read_base, read_table, table_file


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


def load_table(
    name: str,
    base: str | None = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    seeds: int | None = None,
    limit: int | None = None,
    overrides: Sequence[str] = (),
) -> Reproduction:
    """The runs that make that table, or some rows (by name or method) and columns of it.

    base: what stands in for the paper's. seeds: the first so many. limit: rows of every split. overrides: of every
    run, last. RecipeError lists every problem.
    """
    table, marks = read_table(name)
    stand_in = read_base(base) if base else None
    chosen = _columns(table, columns)
    makers = list(
        dict.fromkeys(table.columns[c].run or c for c in chosen if table.columns[c].metric)
    )
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
    study = Study(about=table.about, recipes=tuple(run.recipe for run in table.runs.values()))
    plan = Plan(
        "-".join([name, *([base] if base else [])]),
        table_file(name),
        study,
        tuple(cells.values()),
        (),
    )
    another = stand_in.about if stand_in else table.another_base
    return Reproduction(name, table, kept, chosen, plan, cells, another, limit, absent, same)


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
    return [
        key
        for key, row in table.rows.items()
        if not wanted or key in wanted or row.method_name in wanted
    ]


def _no(what: str, name: str, known: Iterable[str]) -> RecipeError:
    return RecipeError(
        f"no {what} {name!r}{did_you_mean(name, known)} (there are: {', '.join(known)})"
    )


def _same(
    rows: Sequence[str], runs: Sequence[str], cells: Mapping[tuple[str, str], Cell]
) -> dict[str, str]:
    """Rows that are the same runs as an earlier one: on one base, a method stands in several rows."""
    seen: dict[tuple[str, ...], str] = {}
    found = {}
    for row in rows:
        what = tuple(
            _identity(cells[row, run].loaded) if (row, run) in cells else "" for run in runs
        )
        if any(what) and what in seen:
            found[row] = seen[what]
        seen.setdefault(what, row)
    return found


def _identity(loaded: Loaded) -> str:
    plain = {
        k: v for k, v in loaded.recipe.plain().items() if k not in ("seeds", "expect", "about")
    }
    return json.dumps({**plain, "name": loaded.name}, sort_keys=True)


class _Maker:
    """Makes the cells of one table, and gathers what is wrong with them."""

    def __init__(
        self,
        table: PaperTable,
        marks: Marks,
        base: StandIn | None,
        seeds: int | None,
        limit: int | None,
        overrides: Sequence[str],
    ):
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
        return Cell(
            f"{of.name}, {run}",
            recipe,
            tuple(text for text, _ in given),
            loaded,
            {"row": row, "run": run},
        )

    def _build(self, recipe: str, given: Sequence[tuple[str, Mark]]) -> Loaded:
        path, data, marks, _ = self._file(recipe)
        return assemble(
            path,
            deepcopy(data),
            dict(marks),
            [text for text, _ in given],
            [mark for _, mark in given],
        )

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
        given += [
            (text, mark) for text, mark in own if self.base is None or text.startswith("method.")
        ]
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
        return [
            as_override(f"method.{key}", value) for key, value in values.items() if key != "name"
        ]
    return [as_override("method", values), "expect={}"]


def _limits(recipe: Recipe, limit: int) -> list[str]:
    task = recipe.task
    splits = (task.train_split, *task.eval_splits, *task.final_splits)
    return [
        f"data.limit.{split}={min(limit, recipe.data.limit.get(split, limit))}" for split in splits
    ]
