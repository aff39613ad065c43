"""A table of the paper from runs: what is trained already is taken, from run folders or from files of results; the
rest is run as a study, a run that starts from another's adapter after that one."""

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
from lorakit.studies.grid import Cell, Plan
from lorakit.studies.paper import PaperRow
from lorakit.studies.paper_table import Entry, Line, PaperResult, average, entry
from lorakit.studies.report import StudyResult, write_study
from lorakit.studies.run import Watch, finished_seeds, look, run_study, study_folder, trainable
from lorakit.studies.selection import Reproduction

log = logging.getLogger(__name__)


@dataclass
class Taken:
    """What files of results hold of a cell."""

    seeds: dict[int, SeedResult] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    trainable: int | None = None


def run_missing(
    rep: Reproduction, runs: Path, results: Path, launcher: str, jobs: int | None, watch: Watch
) -> None:
    """Run what neither runs nor results hold. KeyboardInterrupt: the runs were stopped, and can go on."""
    left = missing(rep, runs, take(rep, results))
    tried: set[Path] = set()
    try:
        while todo := _next(left, runs, tried):
            tried |= {folder_of(cell.loaded, runs) for cell in todo}
            run_study(replace(left, cells=tuple(todo)), runs, launcher, jobs, watch)
    finally:
        if left.cells:
            make_folder(study_folder(left, runs))
            write_study(study_folder(left, runs), look(left, runs))
    for cell in left.cells:
        if folder_of(cell.loaded, runs) not in tried:
            log.warning(
                "%s waits: it starts from %s, which is not trained yet", cell.label, _start(cell)
            )


def stands(rep: Reproduction, runs: Path, results: Path) -> tuple[StudyResult, PaperResult]:
    """How the runs stand that are not taken from results, and the table; nothing is started or written."""
    taken = take(rep, results)
    open_ = look(missing(rep, runs, taken), runs)
    states = {(cell.point["row"], cell.point["run"]): cell.state for cell in open_.cells}
    lines = tuple(_line(rep, row, runs, taken, states) for row in rep.rows)
    same = [
        f"{_marked(rep.table.rows[row])} is the same run here as {_marked(rep.table.rows[first])}"
        for row, first in rep.same.items()
    ]
    misfits = [
        f"{rep.table.rows[line.row].name}: {line.misfit}"
        for line in lines
        if line.misfit and rep.another_base is None
    ]
    return open_, PaperResult(
        table=rep.name,
        about=rep.table.about,
        statistic=rep.table.statistic,
        another_base=rep.another_base,
        limit=rep.limit,
        columns={c: rep.table.columns[c].title for c in rep.columns},
        lines=lines,
        notes=tuple(dict.fromkeys([*same, *misfits])),
    )


def _next(plan: Plan, runs: Path, tried: set[Path]) -> list[Cell]:
    """Those whose start is there, each folder once: two rows may ask for the same run."""
    found = {folder_of(cell.loaded, runs): cell for cell in plan.cells if can_start(cell, runs)}
    return [cell for folder, cell in found.items() if folder not in tried]


def can_start(cell: Cell, runs: Path) -> bool:
    """Whether the adapter that it starts from is there."""
    try:
        return not _start(cell) or bool(find_adapter(str(_start(cell)), runs, cell.loaded.recipe))
    except RecipeError:
        return False


def _start(cell: Cell) -> str | None:
    return cell.loaded.recipe.start_from


def missing(rep: Reproduction, runs: Path, taken: Mapping[tuple[str, str], Taken]) -> Plan:
    """The cells that neither runs nor results have whole, each with the seeds that the results do not have."""
    cells = []
    for key, cell in rep.cells.items():
        left = [seed for seed in cell.loaded.recipe.seeds if seed not in taken[key].seeds]
        if left == list(cell.loaded.recipe.seeds):
            cells.append(cell)
        elif left and len(finished_seeds(cell, runs)) < len(cell.loaded.recipe.seeds):
            overrides = (*cell.overrides, f"seeds={left}")
            cells.append(
                replace(cell, overrides=overrides, loaded=build(cell.loaded.path, overrides))
            )
    return replace(rep.plan, cells=tuple(cells))


def _marked(row: PaperRow) -> str:
    return " ".join(filter(None, [row.label + row.marks, row.params]))


def _line(
    rep: Reproduction,
    row: str,
    runs: Path,
    taken: Mapping[tuple[str, str], Taken],
    states: Mapping[Any, str],
) -> Line:
    of, entries = rep.table.rows[row], {}
    for name in rep.columns:
        column = rep.table.columns[name]
        at = of.values[list(rep.table.columns).index(name)]
        printed = (
            (at.value, at.spread if at.spread is not None else column.spread)
            if at
            else (None, None)
        )
        key = (row, rep.run_of(name))
        if column.average:
            over = [c for c in rep.table.columns if rep.table.columns[c].metric]
            enough = all(c in entries for c in over)
            entries[name] = (
                average(entries, over, printed, rep.comparable)
                if enough
                else Entry(printed=printed[0], printed_spread=printed[1], state="not all columns")
            )
        elif column.metric is None or key not in rep.cells:
            why = "not measured" if column.metric is None else rep.absent.get(key, "no recipe")
            entries[name] = Entry(printed=printed[0], printed_spread=printed[1], state=why)
        else:
            entries[name] = _entry(
                rep, rep.cells[key], name, printed, runs, taken[key], states.get(key)
            )
    mine = [key for key in rep.cells if key[0] == row]
    counts = [
        trainable(folder_of(rep.cells[key].loaded, runs)) or taken[key].trainable for key in mine
    ]
    return Line(
        row=row,
        label=of.label,
        marks=of.marks,
        method=of.method_name,
        params=of.params,
        misfit=of.misfit,
        trainable=tuple(dict.fromkeys(n for n in counts if n is not None)),
        entries=entries,
    )


def _entry(
    rep: Reproduction,
    cell: Cell,
    column: str,
    printed: tuple[float | None, float | None],
    runs: Path,
    taken: Taken,
    state: str | None,
) -> Entry:
    of = rep.table.columns[column]
    split, _, metric = (of.metric or "").rpartition("/")
    here = finished_seeds(cell, runs)
    seeds = {**taken.seeds, **here}
    values = [
        seeds[s].scores.get(split, {}).get(metric, math.nan)
        for s in cell.loaded.recipe.seeds
        if s in seeds
    ]
    values = [value * of.scale for value in values if math.isfinite(value)]
    sources = [
        *([str(folder_of(cell.loaded, runs))] if here else []),
        *(taken.files if set(taken.seeds) - set(here) else []),
    ]
    wanted, whole = len(cell.loaded.recipe.seeds), len(seeds) == len(cell.loaded.recipe.seeds)
    said = ("done" if here else "taken") if whole else state or "waiting"
    return entry(values, wanted, printed, rep.table.statistic, rep.comparable, said, sources)


def take(rep: Reproduction, folder: Path) -> dict[tuple[str, str], Taken]:
    """What the files of results in that folder hold of each cell: those of the same recipe and values."""
    known = [(path, result, _recipe_of(result)) for path, result in read_results(folder)]
    taken = {key: Taken() for key in rep.cells}
    for key, cell in rep.cells.items():
        for path, result, recipe in known:
            if (
                recipe is not None
                and result.recipe == cell.loaded.name
                and _same(cell, recipe, result)
            ):
                mine = {s.seed: s for s in result.seeds if s.seed in cell.loaded.recipe.seeds}
                taken[key].seeds |= mine
                taken[key].files += [str(path)] if mine else []
                taken[key].trainable = result.counts.trainable
    return taken


def read_results(folder: Path) -> list[tuple[Path, Result]]:
    """Every file below `folder` that is the result of a run; what else lies there is left alone."""
    found = []
    for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
        try:
            found.append((path, Result.read(path)))
        except DataError as error:
            log.debug("%s", error)
    return found


def _recipe_of(result: Result) -> Recipe | None:
    """None where its values are of no recipe that there is now."""
    values = json.loads(json.dumps(result.recipe_values))
    if "max_new_tokens" in (
        before := values.get("evaluate", {})
    ):  # until `decode` had it; it says nothing of a label
        before.pop("max_new_tokens")
    try:
        return compose(values)
    except LorakitError as error:
        log.debug("%s: %s", result.recipe, error)
        return None


def _same(cell: Cell, recipe: Recipe, result: Result) -> bool:
    """The same values, wherever data and checkpoint lie."""
    mine, theirs = (what_matters(r.plain()) for r in (cell.loaded.recipe, recipe))
    for values in (mine, theirs):
        values["data"] = {k: v for k, v in values["data"].items() if k not in ("path", "revision")}
    if mine["model"] != theirs["model"] and Path(cell.loaded.recipe.model.name).is_dir():
        theirs["model"] = {k: v for k, v in theirs["model"].items() if k != "revision"}
        theirs["model"]["name"] = mine["model"]["name"]
        return mine == theirs and _parameters(cell.loaded.recipe) == result.counts.total
    return mine == theirs


def _parameters(recipe: Recipe) -> int:
    return _count(recipe.model.model_dump_json(), recipe.task.head.value, tuple(recipe.task.labels))


@cache
def _count(model: str, head: str, labels: Sequence[str]) -> int:
    """Of a base, from its shapes alone: whether a folder can be the checkpoint that a result names."""
    from lorakit.bases.outline import outline
    from lorakit.models import Model

    return sum(
        p.numel()
        for p in outline(Model.model_validate_json(model), head, labels).model.parameters()
    )
