"""The paper's table with ours beside it. What was not run says so; where the base is another, nothing is compared."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from lorakit.config import Config
from lorakit.report.table import NOTHING, Table


class Entry(Config):
    """One printed number and ours."""

    printed: float | None
    printed_spread: float | None
    ours: float | None = None
    """Median or mean over the seeds, as the paper has it."""
    std: float | None = None
    """Of the sample (n - 1); null for one seed."""
    seeds: int = 0
    wanted: int = 0
    difference: float | None = None
    """Ours minus the printed number; null on another base or a slice."""
    inside: bool | None = None
    """Within the printed spread, its ends included; null where none was printed or nothing is compared."""
    state: str
    """done, running, failed, stopped or waiting, as in a study; `taken`: from a file of results; `no recipe` on this
    base; `not measured`."""
    sources: tuple[str, ...] = Field(default=(), strict=False)
    """Run folder or files of results."""


class Line(Config):
    """One row of the table."""

    row: str
    label: str
    marks: str
    method: str
    params: str | None
    """As printed; null where they are not."""
    trainable: tuple[int, ...] = Field(default=(), strict=False)
    """Ours, of every run that is whole."""
    misfit: str = ""
    """Why the printed number is not what the method has."""
    entries: dict[str, Entry]


class PaperResult(Config):
    """A table as it stands."""

    table: str
    about: str
    statistic: Literal["median", "mean"]
    another_base: str | None = None
    limit: int | None = None
    columns: dict[str, str]
    lines: tuple[Line, ...] = Field(strict=False)
    notes: tuple[str, ...] = Field(default=(), strict=False)

    @property
    def comparable(self) -> bool:
        return self.another_base is None and self.limit is None

    def counts(self) -> dict[str, int]:
        """State -> cells."""
        states = [entry.state for line in self.lines for entry in line.entries.values()]
        return {state: states.count(state) for state in dict.fromkeys(states)}


def entry(
    values: Sequence[float],
    wanted: int,
    printed: tuple[float | None, float | None],
    statistic: str,
    compared: bool,
    state: str,
    sources: Sequence[str] = (),
) -> Entry:
    """Of the values that there are, one per seed."""
    value, spread = printed
    known = {
        "printed": value,
        "printed_spread": spread,
        "wanted": wanted,
        "state": state,
        "sources": tuple(sources),
    }
    if not values:
        return Entry(**known)
    ours = statistics.median(values) if statistic == "median" else statistics.fmean(values)
    difference = ours - value if compared and value is not None else None
    # 88.5 is 89.2 - 0.7, though not in binary fractions
    inside = None if difference is None or spread is None else abs(difference) <= spread + 1e-9
    std = statistics.stdev(values) if len(values) > 1 else None
    return Entry(
        **known, ours=ours, std=std, seeds=len(values), difference=difference, inside=inside
    )


def paper_table(result: PaperResult) -> Table:
    """Two lines for each row, the paper's and ours, and the difference below where the two may be compared."""
    digits = {column: _digits(result, column) for column in result.columns}
    rows = []
    for line in result.lines:
        label = line.label + line.marks
        printed = [_number(e.printed, e.printed_spread, digits[c]) for c, e in line.entries.items()]
        ours = [_ours(e, max(2, digits[c])) for c, e in line.entries.items()]
        rows.append((label, "paper", line.params or "not printed", *printed))
        rows.append(
            (label, _who(result), " / ".join(f"{n:,}" for n in line.trainable) or "missing", *ours)
        )
        if result.comparable:
            below = [_difference(e, max(2, digits[c])) for c, e in line.entries.items()]
            rows.append((label, "difference", NOTHING, *below))
    return Table(
        ("row", "numbers", "parameters", *result.columns.values()),
        tuple(rows),
        _caption(result),
        names=2,
    )


def _who(result: PaperResult) -> str:
    said = [
        *(["another base"] if result.another_base else []),
        *(["a slice"] if result.limit else []),
    ]
    return ", ".join(["ours", *said])


def _caption(result: PaperResult) -> str:
    name = result.table.replace("table", "Table ")
    said = [f"{name}: {result.about}", f"ours: {result.statistic} ± std (seeds)"]
    if result.another_base:
        said.append(f"another base, {result.another_base}: nothing is compared")
    if result.limit:
        said.append(
            f"a slice, at most {result.limit:,} examples of each split: nothing is compared"
        )
    marks = {"*": "numbers of earlier work", "†": "the setup of Houlsby et al."}
    used = "".join(line.marks for line in result.lines)
    return "; ".join([*said, *(f"{mark} {words}" for mark, words in marks.items() if mark in used)])


def _digits(result: PaperResult, column: str) -> int:
    """Decimals of the column, as printed: 8.50 stands below 8.62."""
    found = [line.entries[column] for line in result.lines]
    numbers = [n for e in found for n in (e.printed, e.printed_spread) if n is not None]
    return max((len(str(n).partition(".")[2]) for n in numbers), default=1)


def _number(
    value: float | None, spread: float | None, digits: int, none: str = "not printed"
) -> str:
    if value is None:
        return none
    return f"{value:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread is not None else "")


def _ours(e: Entry, digits: int) -> str:
    if e.ours is None:
        return "missing" if e.state in ("waiting", "done") else f"missing: {e.state}"
    of = f"{e.seeds}" if e.seeds >= e.wanted else f"{e.seeds} of {e.wanted}"
    return f"{_number(e.ours, e.std, digits)} ({of})"


def _difference(e: Entry, digits: int) -> str:
    if e.difference is None:
        return "missing" if e.ours is None else NOTHING
    word = {True: "inside", False: "outside", None: "no spread printed"}[e.inside]
    return f"{e.difference:+.{digits}f} {word}"


def average(
    entries: Mapping[str, Entry],
    over: Sequence[str],
    printed: tuple[float | None, float | None],
    compared: bool,
) -> Entry:
    """Of the row's other numbers, where all of them are there."""
    ours = [entries[column].ours for column in over]
    found = [value for value in ours if value is not None]
    if len(found) < len(over) or not found:
        return Entry(printed=printed[0], printed_spread=printed[1], state="waiting")
    fewest = min(entries[column].seeds for column in over)
    return entry([statistics.fmean(found)], 1, printed, "mean", compared, "done").model_copy(
        update={"seeds": fewest, "wanted": max(entries[column].wanted for column in over)}
    )
