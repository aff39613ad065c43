"""One table, written as markdown, CSV, LaTeX, HTML or plain text. Its cells come from results and from nowhere else."""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lorakit.runs.result import Result, Row, summary

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """header and rows of text. The first `names` columns are names and stand to the left, the others to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    names: int = 1

    def plain(self) -> str:
        """Aligned columns for a terminal."""
        header, *rows = [[_one_line(cell) for cell in row] for row in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = [header, ["─" * width for width in widths], *rows]
        table = [
            "  ".join(
                cell.ljust(width) if i < self.names else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*([_one_line(self.caption)] if self.caption else []), *table])

    def markdown(self) -> str:
        """A table as GitHub and mkdocs read it."""
        rule = [":--" if i < self.names else "--:" for i in range(len(self.header))]
        header, *rows = [[_markdown(cell) for cell in row] for row in (self.header, *self.rows)]
        table = "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *rows))
        return f"{_markdown(self.caption)}\n\n{table}" if self.caption else table

    def csv(self) -> str:
        """Without the caption. A name that a spreadsheet would compute (`=1+1`) has a ' before it."""
        out = io.StringIO()
        rows = [[_no_formula(cell) for cell in row] for row in (self.header, *self.rows)]
        csv.writer(out, lineterminator="\n").writerows(rows)
        return out.getvalue()

    def html(self) -> str:
        """One <table>, for any page; a cell that stands to the left has the class `name`."""

        def cells(row: Sequence[str], scope: str, heads: int) -> str:
            return "".join(
                (f'<th scope="{scope}"' if i < heads else "<td")
                + (' class="name">' if i < self.names else ">")
                + html.escape(cell)
                + ("</th>" if i < heads else "</td>")
                for i, cell in enumerate(row)
            )

        head = cells(self.header, "col", len(self.header))
        body = "".join(f"<tr>{cells(row, 'row', self.names)}</tr>" for row in self.rows)
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def latex(self) -> str:
        r"""A table environment with the rules of booktabs (`\usepackage{booktabs}`)."""
        columns = "l" * self.names + "r" * (len(self.header) - self.names)
        header, *rows = [" & ".join(map(_latex, row)) + r" \\" for row in (self.header, *self.rows)]
        caption = [rf"\caption{{{_latex(self.caption)}}}"] if self.caption else []
        body = [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            header,
            r"\midrule",
            *rows,
            r"\bottomrule",
        ]
        return "\n".join(
            [r"\begin{table}", r"\centering", *caption, *body, r"\end{tabular}", r"\end{table}"]
        )


def score_table(result: Result) -> Table:
    """Measured beside published: a row per split and metric. Without a published number, without its columns."""
    rows, n = summary(result), len(result.seeds)
    known = any(row.published is not None for row in rows)
    ours = f"ours (mean ± std of {n} seeds)" if n > 1 else "ours"
    header = ("split", "metric", "untrained", ours, *(["median"] if n > 2 else []))
    cells = [
        (
            row.split,
            row.metric,
            number(row.base_mean),
            measured(row),
            *([number(row.median)] if n > 2 else []),
        )
        for row in rows
    ]
    if known:
        header += ("published", "difference", "note")
        cells = [
            (*line, published(row), _signed(row.difference), verdict(row))
            for line, row in zip(cells, rows, strict=True)
        ]
    source = f"; published: {result.published_source}" if known and result.published_source else ""
    caption = f"{result.recipe}: {result.task}, {result.model}, {result.method.get('name')}{source}"
    return Table(header, tuple(cells), caption, names=2)


def verdict(row: Row) -> str:
    """inside or outside the published spread; another setting where the two cannot be compared."""
    if row.published is not None and not row.comparable:
        return "another setting"
    return {True: "inside", False: "outside", None: NOTHING}[row.inside]


def comparison(results: Sequence[Result]) -> Table:
    """Several results side by side: a row per model and method, a column per task's primary metric.

    No result hides another: where two have the same model, method and task, each has its row, with its recipe's name.
    """
    tasks = list(dict.fromkeys((r.task, r.primary) for r in results))
    seen: Counter[tuple[str, ...]] = Counter()
    lines: dict[tuple[str, str, int], dict[tuple[str, str], Result]] = {}
    for result in results:
        name = (result.model, _method(result, results))
        nth = seen[(*name, result.task, result.primary)]
        seen[(*name, result.task, result.primary)] += 1
        lines.setdefault((*name, nth), {})[result.task, result.primary] = result
    rows = []
    for (model, method, _), found in lines.items():
        twice = (model, method, 1) in lines
        recipes = (
            f" ({', '.join(dict.fromkeys(r.recipe for r in found.values()))})" if twice else ""
        )
        counts = sorted({r.counts.trainable for r in found.values()})
        rows.append(
            (
                model,
                method + recipes,
                " / ".join(f"{n:,}" for n in counts),
                *(_primary(found.get(t)) for t in tasks),
            )
        )
    return Table(
        ("model", "method", "trainable", *(f"{task} {metric}" for task, metric in tasks)),
        tuple(rows),
        names=2,
    )


def _primary(result: Result | None) -> str:
    rows = summary(result) if result else []
    return next(
        (measured(r) for r in rows if result and (r.split, r.metric) == main_metric(result)),
        NOTHING,
    )


def main_metric(result: Result) -> tuple[str, str]:
    """(split, metric) that selects the best state, and that a result is known by."""
    return result.splits[0], result.primary


def _method(result: Result, among: Sequence[Result]) -> str:
    """Its name, its rank, and what else tells it from the same method in the other results."""
    others = [r.method for r in among if r.method.get("name") == result.method.get("name")]
    told = [
        key
        for key in result.method
        if key == "r" or any(key in m and m[key] != result.method[key] for m in others)
    ]
    values = (f" {key}={_value(result.method[key])}" for key in told if key != "name")
    return f"{result.method.get('name')}{''.join(values)}"


def _value(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def measured(row: Row) -> str:
    """Mean ± standard deviation over the seeds, or the one value."""
    return (
        number(row.mean)
        if row.std is None or math.isnan(row.std)
        else f"{number(row.mean)} ± {number(row.std)}"
    )


def published(row: Row) -> str:
    """As it was printed: with its own decimals, at least one."""
    if row.published is None:
        return NOTHING
    return (
        str(row.published)
        if row.published_spread is None
        else f"{row.published} ± {row.published_spread}"
    )


def number(value: float | None) -> str:
    """Two decimals; a dash for what is not there."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return NOTHING if value is None or math.isnan(value) else f"{value:+.2f}"


_FORMULA = re.compile(r"[=@\t\r]|[-+](?!\d[\d.,]*([eE][-+]?\d+)?( ± [\d.]+)?( [a-z ]+)?$)")


def _no_formula(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _markdown(text: str) -> str:
    # entities where the readers of markdown disagree on what a backslash escapes
    entities = {c: f"&#{ord(c)};" for c in "<>&~$"}
    return re.sub(r"[\\`*_\[\]|]", r"\\\g<0>", _one_line(text)).translate(str.maketrans(entities))


def _latex(text: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
    return _one_line(text).translate(str.maketrans(special))
