"""A study: every cell is one `lorakit train` into the run folder that the command would use by itself.

So a cell is whole when that run is, whoever trained it; one that is whole is not started again, and one that was cut
off goes on as the command does. runs/NAME/ holds study.json, study.md, scores.svg, report.html, and cells/ with a log
for each run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from lorakit.errors import DataError, InputError, RecipeError
from lorakit.models import TRUST_FLAG, is_trusted
from lorakit.runs.finished import intact_seed
from lorakit.runs.folder import folder_of, make_folder, seed_folder
from lorakit.runs.lines import read_lines
from lorakit.runs.result import Result, SeedResult
from lorakit.studies.grid import Cell, Plan, load_study
from lorakit.studies.launchers import Task, launchers
from lorakit.studies.launchers._base import STOPPED
from lorakit.studies.page import Seen, mean_norms, write_study_page
from lorakit.studies.report import CellResult, State, StudyResult, write_study

log = logging.getLogger(__name__)

Watch = Callable[[StudyResult], None]
PROGRAM = (sys.executable, "-m", "lorakit")


def run_study(
    plan: Plan, runs: Path, launcher: str, at_once: int | None, watch: Watch
) -> StudyResult:
    """Start every cell that is not whole and not under way. Returns when all have ended (local) or are queued (slurm).

    watch: given the study whenever a cell starts or ends. KeyboardInterrupt: the cells were stopped, and can go on.
    """
    chosen, folder = launchers.get(launcher), study_folder(plan, runs)
    make_folder(folder / "cells")
    before = look(plan, runs)
    todo = [
        task_of(cell, plan, runs)
        for cell, found in zip(plan.cells, before.cells, strict=True)
        if found.state not in ("done", "running") and not found.note.startswith("job ")
    ]

    def changed() -> None:
        now = look(plan, runs)
        write_study(folder, now, drawn=False)
        watch(now)

    watch(before)
    try:
        chosen.launch(todo, plan.name, at_once, plan.study.slurm, changed)
    finally:
        after = look(plan, runs)
        write_study(folder, after)
    write_page_of(folder, after)
    return after


def look(plan: Plan, runs: Path) -> StudyResult:
    """The study as it stands, from its files and from who runs them; nothing is started or written."""
    tasks = [task_of(cell, plan, runs) for cell in plan.cells]
    seeds = [finished_seeds(cell, runs) for cell in plan.cells]
    open_ = [
        task
        for cell, task, found in zip(plan.cells, tasks, seeds, strict=True)
        if len(found) < len(_seeds(cell))
    ]
    alive = {
        task: words
        for name in launchers.names()
        for task, words in launchers.get(name).alive(open_).items()
    }
    cells = (
        _result(cell, runs, task, found, alive.get(task, ""))
        for cell, task, found in zip(plan.cells, tasks, seeds, strict=True)
    )
    return StudyResult(
        name=plan.name,
        file=str(plan.path),
        about=plan.study.about,
        axes=plan.axes,
        cells=tuple(cells),
    )


def write_page_of(folder: Path, study: StudyResult) -> Path:
    """The study's page, from its result and the folders of its runs."""
    try:
        text = Path(study.file).read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    return write_study_page(
        folder, study, {cell.label: _seen(cell, folder) for cell in study.cells}, text
    )


def redraw(folder: Path) -> StudyResult:
    """The study of that folder as it stands now, its tables, pictures and page written anew; nothing is started.

    Where its file is gone or no study any more, as it stood. DataError: the folder holds none.
    """
    study = StudyResult.read(folder / "study.json")
    with contextlib.suppress(RecipeError):
        study = look(load_study(study.file), folder.parent)
    write_study(folder, study)
    write_page_of(folder, study)
    return study


def _seen(cell: CellResult, folder: Path) -> Seen:
    run = Path(cell.run)
    seeds = {seed: _whole_seed(seed_folder(run, seed)) for seed in cell.scores}
    logs = {seed: read_lines(seed_folder(run, seed) / "metrics.jsonl") for seed in cell.scores}
    norms = mean_norms([found.delta_norms for found in seeds.values() if found is not None])
    try:
        result = Result.read(run / "result.json")
    except DataError:  # not whole yet
        result = None
    page = run / "report.html"
    where = quote(os.path.relpath(page, folder).replace(os.sep, "/")) if page.is_file() else None
    return Seen(logs, norms, result, where)


def study_folder(plan: Plan, runs: Path) -> Path:
    return runs / plan.name


def task_of(cell: Cell, plan: Plan, runs: Path) -> Task:
    """The command of a cell; its files are called as its run folder is."""
    trusts = (TRUST_FLAG,) if is_trusted() else ()
    command = (*PROGRAM, "train", cell.recipe, *cell.overrides, "--runs", str(runs), *trusts)
    return Task(command, study_folder(plan, runs) / "cells" / folder_of(cell.loaded, runs).name)


def finished_seeds(cell: Cell, runs: Path) -> Mapping[int, SeedResult]:
    """Those of the cell's seeds that were trained to their end."""
    run = folder_of(cell.loaded, runs)
    found = {seed: _whole_seed(seed_folder(run, seed)) for seed in _seeds(cell)}
    return {seed: result for seed, result in found.items() if result is not None}


def _whole_seed(folder: Path) -> SeedResult | None:
    """As `intact_seed`; a damaged one counts as not trained, and the command that trains it says what is wrong."""
    try:
        return intact_seed(folder)
    except InputError as error:
        log.warning("%s", error)
        return None


def _seeds(cell: Cell) -> tuple[int, ...]:
    return cell.loaded.recipe.seeds


def _result(
    cell: Cell, runs: Path, task: Task, seeds: Mapping[int, SeedResult], alive: str
) -> CellResult:
    record, recipe = task.record(), cell.loaded.recipe
    state, note = _state(task, len(seeds) == len(recipe.seeds), alive)
    failed = [
        f"check failed: seed {n}, {c.name}"
        for n, found in seeds.items()
        for c in found.checks
        if not c.passed
    ]
    return CellResult(
        label=cell.label,
        recipe=cell.recipe,
        overrides=cell.overrides,
        point=cell.point,
        run=str(folder_of(cell.loaded, runs)),
        log=str(task.log) if task.log.is_file() else None,
        state=state,
        note="; ".join([*([note] if note else []), *failed]),
        attempts=record.attempt if record else 0,
        metric=(recipe.task.eval_splits[0], recipe.task.primary),
        seeds=recipe.seeds,
        scores={seed: found.scores for seed, found in seeds.items()},
        seconds=sum(found.seconds.get("whole", 0.0) for found in seeds.values()),
        trainable=trainable(folder_of(cell.loaded, runs)),
    )


def trainable(run: Path) -> int | None:
    """Parameters that a run trained; None until it is whole."""
    try:
        return Result.read(run / "result.json").counts.trainable
    except DataError:
        return None


def _state(task: Task, whole: bool, alive: str) -> tuple[State, str]:
    """What is on the disk comes first, then who runs it, then how the last attempt ended."""
    record = task.record()
    if whole:
        return "done", ""
    if alive == "running":
        return "running", ""
    if alive:
        return "waiting", alive.removeprefix("waiting: ")
    if record is None:
        return (
            ("stopped", "its job left the queue before it began")
            if task.job.is_file()
            else ("waiting", "")
        )
    if record.ended is None:
        return "stopped", "cut off without a word: killed, or its machine went away"
    if record.code in STOPPED:
        return "stopped", record.error
    return ("failed", record.error) if record.code else ("waiting", "")
