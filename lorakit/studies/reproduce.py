"""The reproduction of a table: finished runs and files of results are used, the rest is run.

It runs as a study. A run that starts from another's adapter waits for that run.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from lorakit.errors import DataError, LorakitError, RecipeError
from lorakit.recipe.load import build, compose
from lorakit.recipe.schema import Recipe
from lorakit.runs.folder import folder_of, make_folder
from lorakit.runs.identity import what_matters
from lorakit.runs.result import Result, SeedResult
from lorakit.runs.seeds import find_adapter
from lorakit.studies.paper_plan import CellKey, Reproduction
from lorakit.studies.paper_result import PaperEntry, PaperLine, PaperResult, PrintedNumber, average
from lorakit.studies.paper_table import PaperColumn
from lorakit.studies.plan import Cell, Plan
from lorakit.studies.result import StudyResult
from lorakit.studies.run import (
    Watch,
    finished_seeds,
    look,
    run_study,
    study_folder,
    trainable,
    write_study,
)

log = logging.getLogger(__name__)


@dataclass
class RecordedSeeds:
    """The seeds of a cell in files of results."""

    seeds: dict[int, SeedResult] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    trainable: int | None = None


def run_missing(
    rep: Reproduction, runs: Path, results: Path, launcher: str, jobs: int | None, watch: Watch
) -> None:
    """Run what neither the run folders nor the results hold.

    KeyboardInterrupt: the runs were stopped; they resume when this is called again.
    """
    left = missing(rep, runs, recorded(rep, results))
    tried: set[Path] = set()
    try:
        while todo := _startable(left, runs, tried):
            tried |= {folder_of(cell.loaded, runs) for cell in todo}
            run_study(replace(left, cells=tuple(todo)), runs, launcher, jobs, watch)
    finally:
        if left.cells:
            make_folder(study_folder(left, runs))
            write_study(study_folder(left, runs), look(left, runs))
    for cell in left.cells:
        if folder_of(cell.loaded, runs) not in tried:
            start = cell.loaded.recipe.start_from
            log.warning("%s waits: it starts from %s, which is not trained yet", cell.label, start)


def progress_of(rep: Reproduction, runs: Path, results: Path) -> tuple[StudyResult, PaperResult]:
    """The state of the runs that the results do not hold, and the table.

    Nothing is started or written.
    """
    from_files = recorded(rep, results)
    study = look(missing(rep, runs, from_files), runs)
    states = {(cell.point["row"], cell.point["run"]): cell.state for cell in study.cells}
    lines = _Lines(rep, runs, from_files, states)
    result = PaperResult(
        table=rep.name,
        about=rep.table.about,
        statistic=rep.table.statistic,
        another_base=rep.another_base,
        limit=rep.limit,
        columns={c: rep.table.columns[c].title for c in rep.columns},
        lines=tuple(lines.line(row) for row in rep.rows),
        notes=tuple(dict.fromkeys(_notes(rep))),
    )
    return study, result


def _notes(rep: Reproduction) -> list[str]:
    rows = rep.table.rows
    notes = [
        f"{rows[row].marked_name} is the same run here as {rows[first].marked_name}"
        for row, first in rep.same.items()
    ]
    if rep.another_base is None:
        notes += [f"{rows[row].name}: {rows[row].misfit}" for row in rep.rows if rows[row].misfit]
    return notes


def _startable(plan: Plan, runs: Path, tried: set[Path]) -> list[Cell]:
    """The cells that can start and were not tried; one for each folder, which rows may share."""
    cells = {folder_of(cell.loaded, runs): cell for cell in plan.cells if can_start(cell, runs)}
    return [cell for folder, cell in cells.items() if folder not in tried]


def can_start(cell: Cell, runs: Path) -> bool:
    """Whether the adapter that the cell starts from exists."""
    recipe = cell.loaded.recipe
    if not recipe.start_from:
        return True
    try:
        return bool(find_adapter(recipe.start_from, runs, recipe))
    except RecipeError:
        return False


def missing(rep: Reproduction, runs: Path, taken: Mapping[CellKey, RecordedSeeds]) -> Plan:
    """The cells that are not complete, each with the seeds that the results do not hold."""
    cells = []
    for key, cell in rep.cells.items():
        left = [seed for seed in cell.seeds if seed not in taken[key].seeds]
        if left == list(cell.seeds):
            cells.append(cell)
        elif left and len(finished_seeds(cell, runs)) < len(cell.seeds):
            overrides = (*cell.overrides, f"seeds={left}")
            loaded = build(cell.loaded.path, overrides)
            cells.append(replace(cell, overrides=overrides, loaded=loaded))
    return replace(rep.plan, cells=tuple(cells))


@dataclass(frozen=True)
class _Lines:
    """Makes the lines of a table from run folders, results and states."""

    rep: Reproduction
    runs: Path
    recorded: Mapping[CellKey, RecordedSeeds]
    states: Mapping[CellKey, str]

    def line(self, row: str) -> PaperLine:
        of_row = self.rep.table.rows[row]
        entries: dict[str, PaperEntry] = {}
        for name in self.rep.columns:
            entries[name] = self._entry(row, name, entries)
        return PaperLine(
            row=row,
            label=of_row.label,
            marks=of_row.marks,
            method=of_row.method_name,
            params=of_row.params,
            misfit=of_row.misfit,
            trainable=self._trainable(row),
            entries=entries,
        )

    def _trainable(self, row: str) -> tuple[int, ...]:
        found = []
        for key, cell in self.rep.cells.items():
            if key[0] == row:
                count = trainable(folder_of(cell.loaded, self.runs))
                found.append(count or self.recorded[key].trainable)
        return tuple(dict.fromkeys(count for count in found if count is not None))

    def _entry(self, row: str, name: str, before: Mapping[str, PaperEntry]) -> PaperEntry:
        """The entry of a row in a column. before: those of the columns to its left."""
        table = self.rep.table
        column = table.columns[name]
        printed = self._printed(row, name)
        if column.average:
            over = [key for key, other in table.columns.items() if other.metric]
            return average(printed, before, over)
        if column.metric is None:
            return printed.without_ours("not measured")
        key = (row, table.run_of(name))
        if key not in self.rep.cells:
            return printed.without_ours(self.rep.absent.get(key, "no recipe"))
        return self._measured(key, column, printed)

    def _printed(self, row: str, name: str) -> PrintedNumber:
        table = self.rep.table
        column = table.columns[name]
        found = table.rows[row].values[list(table.columns).index(name)]
        value = None
        spread = None
        if found is not None:
            value = found.value
            spread = found.spread
            if spread is None:
                spread = column.spread
        return PrintedNumber(value, spread, table.statistic, self.rep.comparable)

    def _measured(self, key: CellKey, column: PaperColumn, printed: PrintedNumber) -> PaperEntry:
        cell = self.rep.cells[key]
        taken = self.recorded[key]
        here = finished_seeds(cell, self.runs)
        seeds = {**taken.seeds, **here}
        sources = []
        if here:
            sources.append(str(folder_of(cell.loaded, self.runs)))
        if set(taken.seeds) - set(here):
            sources += taken.files
        if len(seeds) == len(cell.seeds):
            state = "done" if here else "taken"
        else:
            state = self.states.get(key, "waiting")
        found = [seeds[seed] for seed in cell.seeds if seed in seeds]
        values = _scores(found, column)
        return printed.with_ours(values, len(cell.seeds), state, sources)


def _scores(seeds: Sequence[SeedResult], column: PaperColumn) -> list[float]:
    """The finite scores of the column, in the paper's unit."""
    split, _, metric = (column.metric or "").rpartition("/")
    values = [seed.scores.get(split, {}).get(metric, math.nan) for seed in seeds]
    return [value * column.scale for value in values if math.isfinite(value)]


def recorded(rep: Reproduction, folder: Path) -> dict[CellKey, RecordedSeeds]:
    """The seeds of each cell in the files of results in that folder.

    A file counts for the cells with its recipe and its values.
    """
    results = [(path, result, _recipe_of(result)) for path, result in load_results(folder)]
    found = {key: RecordedSeeds() for key in rep.cells}
    for key, cell in rep.cells.items():
        for path, result, recipe in results:
            if recipe is None or result.recipe != cell.loaded.name:
                continue
            if not _is_same_run(cell, recipe, result):
                continue
            seeds = {s.seed: s for s in result.seeds if s.seed in cell.seeds}
            found[key].seeds |= seeds
            if seeds:
                found[key].files.append(str(path))
            found[key].trainable = result.counts.trainable
    return found


def load_results(folder: Path) -> list[tuple[Path, Result]]:
    """Every file below `folder` that is the result of a run; other files are ignored."""
    found = []
    for path in sorted(folder.rglob("*.json")):
        try:
            found.append((path, Result.read(path)))
        except DataError as error:
            log.debug("%s", error)
    return found


def _recipe_of(result: Result) -> Recipe | None:
    """None where its values are no longer a valid recipe."""
    values = json.loads(json.dumps(result.recipe_values))
    # results from before `decode` have this key, which has no meaning for a classification
    values.get("evaluate", {}).pop("max_new_tokens", None)
    try:
        return compose(values)
    except LorakitError as error:
        log.debug("%s: %s", result.recipe, error)
        return None


def _is_same_run(cell: Cell, recipe: Recipe, result: Result) -> bool:
    """Whether the values are the same, apart from the paths of data and checkpoint."""
    mine = _without_data_path(cell.loaded.recipe)
    theirs = _without_data_path(recipe)
    local = Path(cell.loaded.recipe.model.name).is_dir()
    if mine["model"] == theirs["model"] or not local:
        return mine == theirs
    # a folder and a name on the hub are the same checkpoint if the shapes have the same parameters
    model = {k: v for k, v in theirs["model"].items() if k != "revision"}
    theirs["model"] = model | {"name": mine["model"]["name"]}
    return mine == theirs and _parameters(cell.loaded.recipe) == result.counts.total


def _without_data_path(recipe: Recipe) -> dict[str, Any]:
    values = what_matters(recipe.plain())
    data = {k: v for k, v in values["data"].items() if k not in ("path", "revision")}
    return values | {"data": data}


def _parameters(recipe: Recipe) -> int:
    labels = tuple(recipe.task.labels)
    return _count(recipe.model.model_dump_json(), recipe.task.head.value, labels)


@cache
def _count(model: str, head: str, labels: Sequence[str]) -> int:
    """The number of parameters of a base, from the shapes in its files."""
    from lorakit.bases.outline import outline
    from lorakit.models import Model

    found = outline(Model.model_validate_json(model), head, labels)
    return sum(parameter.numel() for parameter in found.model.parameters())
