"""The result of a reproduction: the paper's table with our numbers next to the printed ones.

The table says what is missing. Where the base is another one, nothing is compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from lorakit.config import Config
from lorakit.report.table import NOTHING, Table

FOOTNOTES = {"*": "numbers of earlier work", "†": "the setup of Houlsby et al."}
LEAST_DIGITS = 2
"""Decimals of our numbers, where the paper prints fewer."""
ROUNDING = 1e-9
"""88.5 is 89.2 - 0.7, but not in binary fractions."""


class PaperEntry(Config):
    """One printed number and ours."""

    printed: float | None
    printed_spread: float | None
    ours: float | None = None
    """Median or mean over the seeds, like the paper's."""
    std: float | None = None
    """Standard deviation of the sample (n - 1); null for one seed."""
    seeds: int = 0
    wanted: int = 0
    difference: float | None = None
    """Ours minus the printed number; null on another base or with a limit."""
    inside: bool | None = None
    """Whether the difference is at most the printed spread; null where none was printed or nothing
    is compared."""
    state: str
    """done, running, failed, stopped or waiting, as in a study; `taken`: from a file of results;
    `no recipe` on this base; `not measured`."""
    sources: tuple[str, ...] = Field(default=(), strict=False)
    """The run folder or the files of results."""


class PaperLine(Config):
    """One row of the table."""

    row: str
    label: str
    marks: str
    method: str
    params: str | None
    """As printed; null where the number is not printed."""
    trainable: tuple[int, ...] = Field(default=(), strict=False)
    """Our trainable parameters, in every complete run."""
    misfit: str = ""
    """Why the printed number is not that of the method."""
    entries: dict[str, PaperEntry]


class PaperResult(Config):
    """A table of the paper with the present state of its reproduction."""

    table: str
    about: str
    statistic: Literal["median", "mean"]
    another_base: str | None = None
    limit: int | None = None
    columns: dict[str, str]
    lines: tuple[PaperLine, ...] = Field(strict=False)
    notes: tuple[str, ...] = Field(default=(), strict=False)

    @property
    def comparable(self) -> bool:
        return self.another_base is None and self.limit is None

    def counts(self) -> dict[str, int]:
        """State -> number of entries."""
        states = [entry.state for line in self.lines for entry in line.entries.values()]
        return {state: states.count(state) for state in dict.fromkeys(states)}


@dataclass(frozen=True)
class PrintedNumber:
    """A number of the paper, and how ours is compared with it."""

    value: float | None
    spread: float | None
    statistic: str
    compared: bool

    def without_ours(self, state: str, **more: Any) -> PaperEntry:
        return PaperEntry(printed=self.value, printed_spread=self.spread, state=state, **more)

    def with_ours(
        self, values: Sequence[float], wanted: int, state: str, sources: Sequence[str] = ()
    ) -> PaperEntry:
        """The entry for the values that exist, one per seed. wanted: the number of seeds."""
        entry = self.without_ours(state, wanted=wanted, sources=tuple(sources))
        if not values:
            return entry
        center = statistics.median if self.statistic == "median" else statistics.fmean
        ours = center(values)
        found: dict[str, Any] = {"ours": ours, "seeds": len(values)}
        if len(values) > 1:
            found["std"] = statistics.stdev(values)
        if self.compared and self.value is not None:
            found["difference"] = ours - self.value
            if self.spread is not None:
                found["inside"] = abs(ours - self.value) <= self.spread + ROUNDING
        return entry.model_copy(update=found)


def average(
    printed: PrintedNumber, entries: Mapping[str, PaperEntry], over: Sequence[str]
) -> PaperEntry:
    """The mean of these entries of the row, once all of them have a number of ours."""
    if not all(column in entries for column in over):
        return printed.without_ours("not all columns")
    parts = [entries[column] for column in over]
    values = [part.ours for part in parts if part.ours is not None]
    if len(values) < len(parts) or not values:
        return printed.without_ours("waiting")
    entry = printed.with_ours([statistics.fmean(values)], 1, "done")
    seeds = min(part.seeds for part in parts)
    return entry.model_copy(update={"seeds": seeds, "wanted": max(part.wanted for part in parts)})


def comparison_table(result: PaperResult) -> Table:
    """Two lines for each row, the paper's and ours, and the difference where it counts."""
    digits = {column: _digits(result, column) for column in result.columns}
    rows = tuple(row for line in result.lines for row in _rows(result, line, digits))
    header = ("row", "numbers", "parameters", *result.columns.values())
    return Table(header, rows, _caption(result), names=2)


def _rows(result: PaperResult, line: PaperLine, digits: Mapping[str, int]) -> list[tuple[str, ...]]:
    label = line.label + line.marks
    entries = line.entries.items()
    own_digits = {column: max(LEAST_DIGITS, n) for column, n in digits.items()}
    printed = [_number(e.printed, e.printed_spread, digits[c]) for c, e in entries]
    ours = [_ours(e, own_digits[c]) for c, e in entries]
    parameters = " / ".join(f"{n:,}" for n in line.trainable) or "missing"
    rows = [
        (label, "paper", line.params or "not printed", *printed),
        (label, _whose(result), parameters, *ours),
    ]
    if result.comparable:
        differences = [_difference(e, own_digits[c]) for c, e in entries]
        rows.append((label, "difference", NOTHING, *differences))
    return rows


def _whose(result: PaperResult) -> str:
    words = ["ours"]
    if result.another_base:
        words.append("another base")
    if result.limit:
        words.append("a slice")
    return ", ".join(words)


def _caption(result: PaperResult) -> str:
    name = result.table.replace("table", "Table ")
    parts = [f"{name}: {result.about}", f"ours: {result.statistic} ± std (seeds)"]
    if result.another_base:
        parts.append(f"another base, {result.another_base}: nothing is compared")
    if result.limit:
        parts.append(
            f"a slice, at most {result.limit:,} examples of each split: nothing is compared"
        )
    used = "".join(line.marks for line in result.lines)
    parts += [f"{mark} {meaning}" for mark, meaning in FOOTNOTES.items() if mark in used]
    return "; ".join(parts)


def _digits(result: PaperResult, column: str) -> int:
    """Decimals of the column as printed: 8.62 makes 8.5 into 8.50."""
    entries = [line.entries[column] for line in result.lines]
    numbers = [n for e in entries for n in (e.printed, e.printed_spread) if n is not None]
    return max((len(str(n).partition(".")[2]) for n in numbers), default=1)


def _number(value: float | None, spread: float | None, digits: int) -> str:
    if value is None:
        return "not printed"
    if spread is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ± {spread:.{digits}f}"


def _ours(entry: PaperEntry, digits: int) -> str:
    if entry.ours is None:
        if entry.state in ("waiting", "done"):
            return "missing"
        return f"missing: {entry.state}"
    seeds = f"{entry.seeds}"
    if entry.seeds < entry.wanted:
        seeds += f" of {entry.wanted}"
    return f"{_number(entry.ours, entry.std, digits)} ({seeds})"


def _difference(entry: PaperEntry, digits: int) -> str:
    if entry.difference is None:
        return "missing" if entry.ours is None else NOTHING
    word = {True: "inside", False: "outside", None: "no spread printed"}[entry.inside]
    return f"{entry.difference:+.{digits}f} {word}"
