"""One self-contained page per study: scores beside published numbers, pictures, where each run changed the weights."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorakit.report.changes import in_layer
from lorakit.report.curves import Logs, mean_curves
from lorakit.report.heat import heat_map
from lorakit.report.page import Fact, fill, flat
from lorakit.report.picture import Picture
from lorakit.report.table import NOTHING, Table, measured, published, verdict
from lorakit.runs.result import Result, Row, summary, write_whole
from lorakit.studies.report import CellResult, StudyResult, picture, study_table


@dataclass(frozen=True)
class Seen:
    """What the page shows of one run besides its scores."""

    logs: Logs = field(default_factory=dict)
    norms: Mapping[str, float] = field(default_factory=dict)
    """Site -> ||dW|| / ||W||, mean over the seeds."""
    result: Result | None = None
    page: str | None = None
    """Where its own page is, seen from the study's folder."""


def write_study_page(
    folder: Path, study: StudyResult, seen: Mapping[str, Seen], text: str = ""
) -> Path:
    """report.html in `folder`, whole or not at all. seen: by a cell's label; text: the study's file."""
    path = folder / "report.html"
    write_whole(path, render_study(study, seen, text))
    return path


def render_study(study: StudyResult, seen: Mapping[str, Seen], text: str = "") -> str:
    """The page as text; everything that comes from the study and its runs is escaped."""
    drawn = picture(study)
    curves = mean_curves({label: one.logs for label, one in seen.items()}, study.cells[0].metric)
    results = [one.result for one in seen.values() if one.result is not None]
    scores = scores_of(study, seen)
    return fill(
        Path(__file__).with_name("study.html.j2"),
        study=study,
        facts=study_facts(study),
        scores=scores,
        published="published" in scores.header,
        pictures=[*([drawn] if drawn else []), *curves],
        changes=change_map({label: one.norms for label, one in seen.items()}),
        runs=[
            (cell, seen[cell.label].page if cell.label in seen else None) for cell in study.cells
        ],
        text=text,
        environment=flat({k: v for k, v in results[0].environment.items() if k != "command"})
        if results
        else [],
    )


def study_facts(study: StudyResult) -> list[Fact]:
    """The best run, and how far the study is."""
    counts = study.counts()
    done, failed = counts.get("done", 0), counts.get("failed", 0)
    best = best_of(study)
    found = []
    if best is not None:
        values = best.values(*best.metric)
        row = Row(*best.metric, tuple(values), None, None, None)
        found.append(Fact(f"best {best.metric[1]}, {best.metric[0]}", measured(row), best.label))
    tone = "bad" if failed else "good" if done == len(study.cells) else ""
    found.append(
        Fact(
            "runs", f"{done} of {len(study.cells)} done", f"{failed} failed" if failed else "", tone
        )
    )
    seeds = {seed for cell in study.cells for seed in cell.seeds}
    seconds = sum(cell.seconds for cell in study.cells)
    found.append(Fact("seeds", ", ".join(map(str, sorted(seeds)))))
    return [*found, *([Fact("time, all runs", f"{seconds / 60:,.1f} min")] if seconds else [])]


def best_of(study: StudyResult) -> CellResult | None:
    """The run of the greatest mean, where all are known by the same metric; None without scores."""
    scored = [cell for cell in study.cells if cell.values(*cell.metric)]
    if len({cell.metric for cell in scored}) != 1:
        return None
    return max(scored, key=lambda cell: statistics.fmean(cell.values(*cell.metric)))


def scores_of(study: StudyResult, seen: Mapping[str, Seen]) -> Table:
    """The study's table; where a run has a published number of its own setting, with that and the difference."""
    table = study_table(study)
    rows = [_main_row(cell, seen.get(cell.label)) for cell in study.cells]
    if not any(row is not None and row.published is not None for row in rows):
        return Table(table.header, table.rows, names=table.names)
    more = [
        (NOTHING,) * 3
        if row is None or row.published is None
        else (
            published(row),
            NOTHING if row.difference is None else f"{row.difference:+.2f}",
            verdict(row),
        )
        for row in rows
    ]
    cells = tuple((*line, *beside) for line, beside in zip(table.rows, more, strict=True))
    return Table((*table.header, "published", "difference", "note"), cells, names=table.names)


def _main_row(cell: CellResult, seen: Seen | None) -> Row | None:
    rows = summary(seen.result) if seen is not None and seen.result is not None else []
    found = next((row for row in rows if (row.split, row.metric) == cell.metric), None)
    return found if found is not None and found.comparable else None


def change_map(norms: Mapping[str, Mapping[str, float]]) -> list[Picture]:
    """||dW|| / ||W|| as a heat map of runs x layers, mean over a layer's weights; none where no weight has a layer."""
    cells: dict[tuple[int, str], list[float]] = defaultdict(list)
    for label, of in norms.items():
        for name, value in of.items():
            layer, _ = in_layer(name)
            if layer is not None:
                cells[layer, label].append(value)
    if not cells:
        return []
    layers, labels = (
        sorted({layer for layer, _ in cells}),
        list(dict.fromkeys(label for _, label in cells)),
    )
    grid = [
        [
            statistics.fmean(cells[layer, label]) if (layer, label) in cells else math.nan
            for layer in layers
        ]
        for label in labels
    ]
    title = (
        "Relative size of the change, by run and layer: mean over the layer's weights and the seeds"
    )
    return [
        heat_map(grid, labels, [str(layer) for layer in layers], ("layer", ""), "‖ΔW‖ / ‖W‖", title)
    ]


def mean_norms(seeds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Site -> mean over the seeds that have it."""
    found: dict[str, list[float]] = defaultdict(list)
    for norms in seeds:
        for name, value in norms.items():
            found[name].append(value)
    return {name: statistics.fmean(values) for name, values in found.items()}
