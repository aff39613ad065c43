"""The reproduction of a table: finished runs and files of results are used, the rest is run.

It runs as a study. A run that starts from another's adapter waits for that run.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from lorakit.errors import LorakitError
from lorakit.recipe.load import build, compose
from lorakit.recipe.schema import Recipe
from lorakit.runs.identity import what_matters
from lorakit.runs.result import Result, SeedResult
from lorakit.studies.paper_plan import CellKey, Reproduction
from lorakit.studies.paper_result import PaperEntry, PaperLine, PaperResult, average, with_ours
from lorakit.studies.paper_spread import missed, spread_of
from lorakit.studies.paper_table import PaperColumn
from lorakit.studies.plan import Cell, Plan
from lorakit.studies.result import StudyResult
from lorakit.studies.run import Watch, finished_seeds, look, run_study, trainable

log = logging.getLogger(__name__)


@dataclass
class CellSeeds:
    """The seeds of a cell that exist: those of its run folder, and those in files of results."""

    cell: Cell
    run: Path
    here: Mapping[int, SeedResult]
    trainable: int | None
    taken: dict[int, SeedResult] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def found(self) -> list[SeedResult]:
        """Those of the run folder are preferred."""
        seeds = {**self.taken, **self.here}
        return [seeds[seed] for seed in self.cell.seeds if seed in seeds]

    def scores(self, column: PaperColumn) -> list[float]:
        """The finite scores of the column, in the paper's unit."""
        split, _, metric = (column.metric or "").rpartition("/")
        values = [seed.scores.get(split, {}).get(metric, math.nan) for seed in self.found()]
        return [value * column.scale for value in values if math.isfinite(value)]

    def sources(self) -> tuple[str, ...]:
        """The run folder and the files that seeds are from."""
        own = [str(self.run)] if self.here else []
        others = self.files if self.taken.keys() - self.here.keys() else []
        return (*own, *others)


def run_missing(
    rep: Reproduction,
    runs: Path,
    results: Path,
    launcher: str | None,
    jobs: int | None,
    watch: Watch,
) -> None:
    """Run what neither the run folders nor the results hold.

    KeyboardInterrupt: the runs were stopped; they resume when this is called again.
    """
    left = missing(rep, gather(rep, runs, results))
    # rows may share a run
    cells = {cell.folder(runs): cell for cell in left.cells}
    if cells:
        run_study(replace(left, cells=tuple(cells.values())), runs, launcher, jobs, watch)


def progress_of(rep: Reproduction, runs: Path, results: Path) -> tuple[StudyResult, PaperResult]:
    """The state of the runs that the results do not hold, and the table.

    Nothing is started or written.
    """
    gathered = gather(rep, runs, results)
    study = look(missing(rep, gathered), runs)
    states = {(cell.point["row"], cell.point["run"]): cell.state for cell in study.cells}
    lines = _Lines(rep, gathered, states)
    result = PaperResult(
        table=rep.name,
        about=rep.table.about,
        statistic=rep.table.statistic,
        another_base=rep.another_base,
        limit=rep.limit,
        changed=rep.changed,
        columns={c: rep.table.columns[c].title for c in rep.columns},
        lines=tuple(lines.line(row) for row in rep.rows),
        notes=tuple(dict.fromkeys(_notes(rep))),
    )
    return study, result.model_copy(update={"notes": (*result.notes, *_of_missed(result))})


def _of_missed(result: PaperResult) -> list[str]:
    """What `outside` says, where something is compared."""
    entries = [entry for line in result.lines for entry in line.entries.values()]
    shares = [entry.missed for entry in entries if entry.missed is not None]
    if not shares:
        return []
    outside = sum(entry.inside is False for entry in entries if entry.missed is not None)
    return [
        f"{outside} of {len(shares)} compared numbers are outside; of as many perfect ones, "
        f"{sum(shares):.1f} would be, if scores are normal and the printed ± is right"
    ]


def _notes(rep: Reproduction) -> list[str]:
    rows = rep.table.rows
    notes = [
        f"{rows[row].marked_name} is the same run here as {rows[first].marked_name}"
        for row, first in rep.same.items()
    ]
    if rep.another_base is None:
        notes += [f"{rows[row].name}: {rows[row].misfit}" for row in rep.rows if rows[row].misfit]
    return notes


def missing_without_results(rep: Reproduction, runs: Path) -> tuple[Cell, ...]:
    """The cells that are not complete in their run folders."""
    cells = rep.plan.cells
    return tuple(cell for cell in cells if len(finished_seeds(cell, runs)) < len(cell.seeds))


def missing(rep: Reproduction, gathered: Mapping[CellKey, CellSeeds]) -> Plan:
    """The cells that are not complete, each with the seeds that the results do not hold."""
    cells = []
    for key, cell in rep.cells.items():
        left = [seed for seed in cell.seeds if seed not in gathered[key].taken]
        if left == list(cell.seeds):
            cells.append(cell)
        # a run folder that holds all seeds is complete without the files
        elif left and len(gathered[key].here) < len(cell.seeds):
            overrides = (*cell.overrides, f"seeds={left}")
            loaded = build(cell.loaded.path, overrides)
            cells.append(replace(cell, overrides=overrides, loaded=loaded))
    return replace(rep.plan, cells=tuple(cells))


@dataclass(frozen=True)
class _Lines:
    """Makes the lines of a table from the seeds that exist and the states of the others."""

    rep: Reproduction
    gathered: Mapping[CellKey, CellSeeds]
    states: Mapping[CellKey, str]

    def line(self, row: str) -> PaperLine:
        of_row = self.rep.table.rows[row]
        entries: dict[str, PaperEntry] = {}
        for name in self.rep.columns:
            entries[name] = self._entry(row, name, entries)
        counts = [found.trainable for key, found in self.gathered.items() if key[0] == row]
        return PaperLine(
            row=row,
            label=of_row.label,
            marks=of_row.marks,
            method=of_row.method_name,
            params=of_row.params,
            misfit=of_row.misfit,
            trainable=tuple(dict.fromkeys(count for count in counts if count is not None)),
            entries=entries,
        )

    def _entry(self, row: str, name: str, before: Mapping[str, PaperEntry]) -> PaperEntry:
        """The entry of a row in a column. before: those of the columns to its left."""
        table = self.rep.table
        column = table.columns[name]
        entry = PaperEntry(printed=None, printed_spread=None)
        printed = table.rows[row].values[list(table.columns).index(name)]
        if printed is not None:
            spread = column.spread if printed.spread is None else printed.spread
            kind = table.kind_of(row, name)
            entry = PaperEntry(printed=printed.value, printed_spread=spread, kind=kind)
        if column.average:
            parts = [before.get(key) for key, other in table.columns.items() if other.metric]
            return average(entry, parts, self.rep.comparable)
        if column.metric is None:
            return entry
        key = (row, table.run_of(name))
        if key in self.rep.absent:
            return entry.model_copy(update={"state": self.rep.absent[key]})
        return self._measured(entry, key, column)

    def _measured(self, entry: PaperEntry, key: CellKey, column: PaperColumn) -> PaperEntry:
        found = self.gathered[key]
        wanted = len(found.cell.seeds)
        state = self.states.get(key, "waiting")
        if len(found.found()) == wanted:
            state = "done" if found.here else "taken"
        changes = {"state": state, "wanted": wanted, "sources": found.sources()}
        entry = entry.model_copy(update=changes)
        values = found.scores(column)
        if not values:
            return entry
        center = statistics.median if self.rep.table.statistic == "median" else statistics.fmean
        own = column.kind or self.rep.table.kind
        std = statistics.stdev(values) if len(values) > 1 else None
        entry = entry.model_copy(update={"own_kind": own})
        more = {"seeds": len(values), "std": std, "spread": spread_of(values, own)}
        compared = with_ours(entry, center(values), self.rep.comparable, **more)
        return compared.model_copy(update={"missed": self._missed(compared)})

    def _missed(self, entry: PaperEntry) -> float | None:
        table = self.rep.table
        if entry.inside is None or table.seeds is None:
            return None
        assert entry.printed is not None
        assert entry.printed_spread is not None
        printed = entry.printed, entry.printed_spread, entry.kind
        return missed(*printed, table.statistic, (table.seeds, entry.seeds))


def gather(rep: Reproduction, runs: Path, results: Path) -> dict[CellKey, CellSeeds]:
    """The seeds of each cell in its run folder, and in the files of results in that folder.

    A file counts for the cells with its values, whatever the name of the recipe it was made with.
    """
    loaded = load_results(results)
    found = {}
    for key, cell in rep.cells.items():
        run = cell.folder(runs)
        found[key] = CellSeeds(cell, run, finished_seeds(cell, runs), trainable(run))
        for path, result, recipe in loaded:
            if _is_same_run(cell, recipe, result):
                _take(found[key], path, result)
    return found


def _take(found: CellSeeds, path: Path, result: Result) -> None:
    seeds = {seed.seed: seed for seed in result.seeds if seed.seed in found.cell.seeds}
    found.taken |= seeds
    if seeds:
        found.files.append(str(path))
    found.trainable = found.trainable or result.counts.trainable


def load_results(folder: Path) -> list[tuple[Path, Result, Recipe]]:
    """Every file below `folder` that is the result of a run whose recipe is valid; no others."""
    found = []
    for path in sorted(folder.rglob("*.json")):
        try:
            result = Result.read(path)
            values = deepcopy(result.recipe_values)
            # results from before `decode` have this key, which has no meaning for a classification
            values.get("evaluate", {}).pop("max_new_tokens", None)
            found.append((path, result, compose(values)))
        except LorakitError as error:
            log.debug("%s: %s", path, error)
    return found


def _is_same_run(cell: Cell, recipe: Recipe, result: Result) -> bool:
    """Whether the values are the same, apart from the paths of data and checkpoint."""
    own = cell.loaded.recipe
    mine = _without_paths(own)
    theirs = _without_paths(recipe)
    if mine == theirs or not Path(own.model.name).is_dir():
        return mine == theirs
    # a folder and a name on the hub are the same checkpoint if the shapes have the same parameters
    for values in (mine, theirs):
        values["model"] = {**values["model"], "name": None, "revision": None}
    return mine == theirs and _parameters(own) == result.counts.total


def _without_paths(recipe: Recipe) -> dict[str, Any]:
    values = what_matters(recipe.plain())
    return {**values, "data": {**values["data"], "path": None, "revision": None}}


def _parameters(recipe: Recipe) -> int:
    labels = tuple(recipe.task.labels)
    return _count(recipe.model.model_dump_json(), recipe.task.head.value, labels)


@cache
def _count(model: str, head: str, labels: tuple[str, ...]) -> int:
    """The number of parameters of a base, from the shapes in its files."""
    from lorakit.bases.outline import outline
    from lorakit.models import Model

    found = outline(Model.model_validate_json(model), head, labels)
    return sum(parameter.numel() for parameter in found.model.parameters())
