"""The page of a study: one self-contained HTML file with tables, plots and heat maps."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorakit.report.changes import in_layer
from lorakit.report.curves import Logs, mean_curves
from lorakit.report.heat import heat_map
from lorakit.report.page import Fact, fill, flat
from lorakit.report.picture import Picture
from lorakit.report.table import NOTHING, Table, measured, published, verdict
from lorakit.runs.result import Result, Row, summary, write_whole
from lorakit.studies.plot import plot
from lorakit.studies.result import CellResult, StudyResult
from lorakit.studies.tables import study_table


@dataclass(frozen=True)
class RunView:
    """The parts of one run that the page shows in addition to its scores."""

    logs: Logs = field(default_factory=dict)
    norms: Mapping[str, float] = field(default_factory=dict)
    """Site -> ||dW|| / ||W||, mean over the seeds."""
    result: Result | None = None
    page: str | None = None
    """The link to its own page, relative to the study's folder."""


def write_study_page(
    folder: Path, study: StudyResult, views: Mapping[str, RunView], text: str = ""
) -> Path:
    """Write report.html in `folder`, completely or not at all. Returns its path.

    views: cell label -> view. text: the content of the study's file.
    """
    path = folder / "report.html"
    write_whole(path, render_study(study, views, text))
    return path


def render_study(study: StudyResult, views: Mapping[str, RunView], text: str = "") -> str:
    """The page as text. Everything that comes from the study and its runs is escaped."""
    drawn = plot(study)
    curves = mean_curves({label: view.logs for label, view in views.items()}, study.cells[0].metric)
    scores = scores_of(study, views)
    pages = {label: view.page for label, view in views.items()}
    return fill(
        Path(__file__).with_name("study.html.j2"),
        study=study,
        facts=study_facts(study),
        scores=scores,
        published="published" in scores.header,
        pictures=curves if drawn is None else [drawn, *curves],
        changes=change_map({label: view.norms for label, view in views.items()}),
        runs=[(cell, pages.get(cell.label)) for cell in study.cells],
        text=text,
        environment=_environment(views),
    )


def _environment(views: Mapping[str, RunView]) -> list[tuple[str, str]]:
    """The environment of the first complete run, without its command."""
    for view in views.values():
        if view.result is not None:
            kept = {k: v for k, v in view.result.environment.items() if k != "command"}
            return flat(kept)
    return []


def study_facts(study: StudyResult) -> list[Fact]:
    """The best run, the number of finished runs, the seeds, and the time."""
    facts = []
    best = best_of(study)
    if best is not None:
        split, metric = best.metric
        row = Row(split, metric, tuple(best.values(split, metric)), None, None, None)
        facts.append(Fact(f"best {metric}, {split}", measured(row), best.label))
    facts.append(_runs_fact(study))
    seeds = {seed for cell in study.cells for seed in cell.seeds}
    facts.append(Fact("seeds", ", ".join(map(str, sorted(seeds)))))
    seconds = sum(cell.seconds for cell in study.cells)
    if seconds:
        facts.append(Fact("time, all runs", f"{seconds / 60:,.1f} min"))
    return facts


def _runs_fact(study: StudyResult) -> Fact:
    counts = study.counts()
    done = counts.get("done", 0)
    failed = counts.get("failed", 0)
    tone = ""
    if failed:
        tone = "bad"
    elif done == len(study.cells):
        tone = "good"
    note = f"{failed} failed" if failed else ""
    return Fact("runs", f"{done} of {len(study.cells)} done", note, tone)


def best_of(study: StudyResult) -> CellResult | None:
    """The run with the greatest mean; None without scores or with different metrics."""
    scored = [cell for cell in study.cells if cell.values(*cell.metric)]
    if len({cell.metric for cell in scored}) != 1:
        return None
    return max(scored, key=lambda cell: statistics.fmean(cell.values(*cell.metric)))


def scores_of(study: StudyResult, views: Mapping[str, RunView]) -> Table:
    """The study's table; with published numbers and differences where a run has its own."""
    table = study_table(study)
    rows = [_primary_row(cell, views.get(cell.label)) for cell in study.cells]
    if not any(row is not None and row.published is not None for row in rows):
        return Table(table.header, table.rows, names=table.names)
    header = (*table.header, "published", "difference", "note")
    compared = zip(table.rows, rows, strict=True)
    lines = tuple((*line, *_comparison(row)) for line, row in compared)
    return Table(header, lines, names=table.names)


def _comparison(row: Row | None) -> tuple[str, str, str]:
    """Published score, difference, and verdict."""
    if row is None or row.published is None:
        return NOTHING, NOTHING, NOTHING
    difference = NOTHING
    if row.difference is not None:
        difference = f"{row.difference:+.2f}"
    return published(row), difference, verdict(row)


def _primary_row(cell: CellResult, view: RunView | None) -> Row | None:
    """None where the run is not complete, or the published score has another setting."""
    if view is None or view.result is None:
        return None
    for row in summary(view.result):
        if (row.split, row.metric) == cell.metric:
            if row.comparable:
                return row
            break
    return None


def change_map(norms: Mapping[str, Mapping[str, float]]) -> list[Picture]:
    """||dW|| / ||W|| as a heat map of runs x layers, mean over the weights of a layer.

    Empty where no weight belongs to a layer.
    """
    values: dict[tuple[int, str], list[float]] = defaultdict(list)
    for label, of_run in norms.items():
        for name, value in of_run.items():
            layer, _ = in_layer(name)
            if layer is not None:
                values[layer, label].append(value)
    if not values:
        return []
    layers = sorted({layer for layer, _ in values})
    labels = list(dict.fromkeys(label for _, label in values))
    means = {key: statistics.fmean(found) for key, found in values.items()}
    grid = [[means.get((layer, label), math.nan) for layer in layers] for label in labels]
    title = (
        "Relative size of the change, by run and layer: mean over the layer's weights and the seeds"
    )
    names = [str(layer) for layer in layers]
    return [heat_map(grid, labels, names, ("layer", ""), "‖ΔW‖ / ‖W‖", title)]


def mean_norms(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Site -> mean over the seeds that have it."""
    found: dict[str, list[float]] = defaultdict(list)
    for norms in seeds:
        for name, value in norms.items():
            found[name].append(value)
    return {name: statistics.fmean(values) for name, values in found.items()}
