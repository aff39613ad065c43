"""Learning rates at an edge of a study's grid, where the best one may not have been tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lorakit.metrics import lower_is_better
from lorakit.studies.result import CellResult, StudyResult
from lorakit.studies.schema import as_label

RATE = "learning_rate"
FEWEST_RATES = 3
"""Of two rates, the better one is always at an edge."""


@dataclass(frozen=True)
class Edge:
    """Runs that differ in their rate only, of which the best has the lowest or the highest."""

    of: str
    """The values of the other axes; empty without any."""
    rate: float
    lowest: bool


def rates_at_an_edge(study: StudyResult) -> list[Edge]:
    """In the order of the grid. Groups of runs that are not complete are left out."""
    groups: dict[str, list[CellResult]] = {}
    for cell in study.cells:
        others = [f"{axis}={as_label(value)}" for axis, value in cell.point.items() if axis != RATE]
        if isinstance(cell.point.get(RATE), (int, float)):
            groups.setdefault(", ".join(others), []).append(cell)
    edges = []
    for others, cells in groups.items():
        best = _best(cells)
        if best is None:
            continue
        rates = sorted(cell.point[RATE] for cell in cells)
        rate = best.point[RATE]
        if rate in (rates[0], rates[-1]):
            edges.append(Edge(others, rate, lowest=rate == rates[0]))
    return edges


def edge_notes(study: StudyResult) -> list[str]:
    """A sentence for each rate at an edge, with the runs that are best there."""
    groups: dict[tuple[float, bool], list[str]] = {}
    for edge in rates_at_an_edge(study):
        groups.setdefault((edge.rate, edge.lowest), []).append(edge.of)
    notes = []
    for (rate, lowest), names in groups.items():
        side, beyond = ("lowest", "lower") if lowest else ("highest", "higher")
        of = f" for {', '.join(names)}" if any(names) else ""
        notes.append(
            f"the best rate is the {side} of the grid, {rate:g}{of}; a {beyond} one may be better"
        )
    return notes


def _best(cells: Sequence[CellResult]) -> CellResult | None:
    """The chosen run, where the study chooses, else the one with the best mean; None: it is not
    known, or all are equal."""
    chosen = [cell for cell in cells if cell.chosen]
    if chosen:
        return chosen[0] if len(cells) >= FEWEST_RATES else None
    sign = -1 if lower_is_better(cells[0].metric[1]) else 1
    scores = [sign * cell.mean for cell in cells]
    if len(cells) < FEWEST_RATES or any(map(math.isnan, scores)) or len(set(scores)) == 1:
        return None
    return cells[scores.index(max(scores))]
