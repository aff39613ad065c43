"""The tables of a study: the states of its runs, and their scores."""

from __future__ import annotations

import json
import statistics
from typing import Any

from lorakit.report.table import NOTHING, Table, number
from lorakit.studies.result import CellResult, StudyResult


def state_table(study: StudyResult) -> Table:
    """A row per run: its state, its seeds, its score, and what is wrong with it."""
    rows = tuple(_state_row(cell) for cell in study.cells)
    counts = ", ".join(f"{n} {state}" for state, n in study.counts().items())
    header = ("run", "state", "seeds", metric_name(study), "note")
    return Table(header, rows, f"{study.name}: {counts}", names=2)


def _state_row(cell: CellResult) -> tuple[str, ...]:
    seeds = f"{len(cell.scores)}/{len(cell.seeds)}"
    note = cell.note
    if cell.state in ("failed", "stopped") and cell.log:
        note += f" (log: {cell.log})"
    return cell.label, cell.state, seeds, _mean(cell, *cell.metric), note


def study_table(study: StudyResult) -> Table:
    """A row per run: a column per axis and key, then mean ± std over the seeds for every metric.

    The last column is the number of seeds. Where runs train different numbers of parameters, these
    have a column as well.
    """
    keys = list(dict.fromkeys(key for cell in study.cells for key in cell.point)) or ["run"]
    metrics = list(dict.fromkeys(found for cell in study.cells for found in _metrics(cell)))
    splits = {split for split, _ in metrics}
    with_sizes = len({cell.trainable for cell in study.cells} - {None}) > 1
    header = list(keys)
    if with_sizes:
        header.append("trainable")
    header += [metric if len(splits) == 1 else f"{split} {metric}" for split, metric in metrics]
    rows = []
    for cell in study.cells:
        row = [as_label(cell.point.get(key, cell.label)) for key in keys]
        if with_sizes:
            row.append(NOTHING if cell.trainable is None else f"{cell.trainable:,}")
        row += [_mean(cell, split, metric) for split, metric in metrics]
        rows.append((*row, str(len(cell.scores))))
    caption = study.name
    if study.about:
        caption += f": {study.about}"
    caption += " (mean ± std over n seeds)"
    return Table((*header, "n"), tuple(rows), caption, names=len(keys))


def metric_name(study: StudyResult) -> str:
    """The primary metric of all runs; `score` where they have different ones."""
    names = {cell.metric[1] for cell in study.cells}
    if len(names) == 1:
        return names.pop()
    return "score"


def as_label(value: Any) -> str:
    """The value of an axis as people read it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "+".join(value)
    return json.dumps(value, ensure_ascii=False)


def _metrics(cell: CellResult) -> list[tuple[str, str]]:
    """(split, metric) of all scores, the primary one first."""
    found = [
        (split, metric)
        for scores in cell.scores.values()
        for split, metrics in scores.items()
        for metric in metrics
    ]
    if not found:
        return []
    return list(dict.fromkeys([cell.metric, *found]))


def _mean(cell: CellResult, split: str, metric: str) -> str:
    values = cell.values(split, metric)
    if not values:
        return NOTHING
    mean = number(statistics.fmean(values))
    if len(values) == 1:
        return mean
    return f"{mean} ± {number(statistics.stdev(values))}"
