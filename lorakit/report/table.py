"""One table, written as markdown, CSV, LaTeX, HTML or plain text. Its cells come from results and from nowhere else."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lorakit.report.result import Result, Row, summary

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """header and rows of text; the first column is a name, the others are numbers and stand to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def plain(self) -> str:
        """Aligned columns for a terminal."""
        widths = [max(len(row[i]) for row in (self.header, *self.rows)) for i in range(len(self.header))]
        lines = [self._line(row, widths) for row in (self.header, *self.rows)]
        return "\n".join([*([self.caption] if self.caption else []), *lines])

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        first = row[0].ljust(widths[0])
        return "  ".join([first, *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]).rstrip()

    def markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        rule = "|" + "|".join([" :-- ", *([" --: "] * (len(self.header) - 1))]) + "|"
        table = "\n".join([line(self.header), rule, *(line(row) for row in self.rows)])
        return f"{self.caption}\n\n{table}" if self.caption else table

    def csv(self) -> str:
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.header, *self.rows])
        return out.getvalue()

    def html(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.header)
        body = "".join(
            f'<tr><th scope="row">{html.escape(row[0])}</th>'
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
            + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def latex(self) -> str:
        columns = "l" + "r" * (len(self.header) - 1)
        lines = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in (self.header, *self.rows)]
        caption = [rf"\caption{{{_latex(self.caption)}}}"] if self.caption else []
        body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
        return "\n".join([r"\begin{table}", *caption, *body, r"\end{tabular}", r"\end{table}"])


def score_table(result: Result) -> Table:
    """Measured beside published: a row per split and metric."""
    many = len(result.seeds) > 1
    rows = tuple(
        (
            f"{row.split} {row.metric}",
            number(row.base_mean),
            _ours(row),
            *([number(row.median)] if many else []),
            _spread(row.published, row.published_spread),
            _signed(row.difference),
            {True: "inside", False: "outside", None: ""}[row.inside],
        )
        for row in summary(result)
    )
    ours = f"ours (mean ± std of {len(result.seeds)} seeds)" if many else "ours"
    header = ("split, metric", "untrained", ours, *(["median"] if many else []), "published", "difference", "spread")
    source = f"; published: {result.published_source}" if result.published_source else ""
    return Table(header, rows, f"{result.recipe}: {result.task}, {result.model}, {result.method.get('name')}{source}")


def comparison(results: Sequence[Result]) -> Table:
    """Several results side by side: a row per recipe and method, a column per task's primary metric."""
    columns = list(dict.fromkeys((r.task, r.primary) for r in results))
    names = list(dict.fromkeys((r.model, _method(r)) for r in results))
    found = {(r.model, _method(r), r.task): r for r in results}
    rows = []
    for model, method in names:
        of = [found.get((model, method, task)) for task, _ in columns]
        counts = {f"{r.counts.trainable:,}" for r in of if r is not None}
        rows.append((f"{model} {method}", " / ".join(sorted(counts)), *(_cell(r) for r in of)))
    return Table(("model, method", "trainable", *(f"{task} {metric}" for task, metric in columns)), tuple(rows))


def _cell(result: Result | None) -> str:
    if result is None:
        return NOTHING
    return next(_ours(r) for r in summary(result) if r.split == result.splits[0] and r.metric == result.primary)


def _method(result: Result) -> str:
    rank = f" r={result.method['r']}" if "r" in result.method else ""
    return f"{result.method.get('name')}{rank}"


def _ours(row: Row) -> str:
    return _spread(row.mean, row.std)


def _spread(value: float | None, spread: float | None) -> str:
    return number(value) if spread is None else f"{number(value)} ± {number(spread)}"


def _signed(value: float | None) -> str:
    return NOTHING if value is None or math.isnan(value) else f"{value:+.2f}"


def number(value: float | None) -> str:
    """Two decimals; a dash for what is not there."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.2f}"


def _latex(text: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--",
        "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    }  # fmt: skip
    return "".join(special.get(c, c) for c in text)
