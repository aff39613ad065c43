"""Runs side by side, with what can be said about their differences: a table, and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lorakit.compare.significance import LEVEL, Difference, holm
from lorakit.report.table import NOTHING, Table


@dataclass(frozen=True)
class Compared:
    """One metric of one run beside that of the first run."""

    run: str
    against: str
    metric: str
    over: str
    """What was tested: `408 examples` or `3 + 3 seeds`."""
    score: float
    score_against: float
    difference: Difference
    primary: bool
    """Tested; the other metrics describe."""
    tests: int = 1
    """Tests of which this is one, and p corrected for."""

    @property
    def verdict(self) -> str:
        if not self.primary or math.isnan(self.difference.p):
            return "descriptive" if not self.primary else NOTHING
        return "established" if self.difference.p <= LEVEL else "not established"


@dataclass(frozen=True)
class Comparison:
    """rows: of the primary metric p is corrected for the number of runs that were compared (Holm)."""

    task: str
    split: str
    examples: int
    primary: str
    resamples: int
    runs: dict[str, str]
    """Name in the rows -> folder."""
    seeds: dict[str, list[int]]
    rows: list[Compared]
    left_out: dict[str, str] = field(default_factory=dict)
    """Metric -> why its examples were not resampled."""
    notes: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        rows = [
            {k: v for k, v in vars(row).items() if k != "difference"}
            | {"difference" if k == "value" else k: v for k, v in vars(row.difference).items()}
            | {"verdict": row.verdict}
            for row in self.rows
        ]
        return vars(self) | {"rows": rows}


def corrected(rows: Sequence[Compared]) -> list[Compared]:
    """With Holm's p for the primary metric: over examples and over seeds each is one family of tests."""
    found = list(rows)
    for kind in ("examples", "seeds"):
        places = [i for i, row in enumerate(found) if row.primary and row.over.endswith(kind)]
        for i, p in zip(places, holm([found[i].difference.p for i in places]), strict=True):
            found[i] = replace(
                found[i], difference=replace(found[i].difference, p=p), tests=len(places)
            )
    return found


def table(found: Comparison) -> Table:
    """A row per run, metric, and what was resampled."""
    rows = tuple(
        (
            row.run,
            row.against,
            row.metric,
            row.over,
            _number(row.score, row),
            _number(row.score_against, row),
            f"{_number(row.difference.value, row)} ± {_number(row.difference.error, row)}",
            f"{_number(row.difference.low, row)} to {_number(row.difference.high, row)}",
            probability(row.difference.p),
            row.verdict,
        )
        for row in found.rows
    )
    several = len(found.runs) > 2
    caption = (
        f"{found.task} {found.split}: difference = run - against, ± standard error; {found.resamples:,} resamples"
        f"{f'; p of {found.primary} after Holm for {len(found.runs) - 1} runs' if several else ''}"
    )
    header = (
        "run",
        "against",
        "metric",
        "over",
        "score",
        "of against",
        "difference",
        "95 % interval",
        "p",
        "verdict",
    )
    return Table(header, rows, caption, names=4)


def sentence(row: Compared) -> str:
    """`accuracy, 408 examples: difference 0.40 ± 0.50 (95 % interval -0.60 to 1.40), p = 0.31: not established`"""
    d = row.difference
    value, error, low, high = (_number(x, row) for x in (d.value, d.error, d.low, d.high))
    p = probability(d.p)
    p = (p if p.startswith("<") else f"= {p}") + (
        f" (Holm, {row.tests} tests)" if row.tests > 1 else ""
    )
    return (
        f"{row.run} - {row.against}, {row.metric}, {row.over}: difference {value} ± {error} "
        f"(95 % interval {low} to {high}), p {p}: {row.verdict}"
    )


def probability(p: float) -> str:
    """Two digits that count; `< 0.001` below that."""
    if math.isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _number(value: float, row: Compared) -> str:
    """Two decimals, or as many as show the standard error (at most four); never -0.00."""
    if math.isnan(value):
        return NOTHING
    digits = 2 + sum(row.difference.error < least for least in (0.1, 0.01))
    return f"{value if abs(value) >= 0.5 * 10**-digits else 0.0:.{digits}f}"
