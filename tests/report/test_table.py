"""Tables: golden renderings, and names that mean something to a format."""

from __future__ import annotations

import csv
import html
import io
import math
import os
import re
import sys

import pytest

from lorakit.cli.output import give
from lorakit.recipe.expect import Published
from lorakit.report.table import Table, comparison, published, score_table
from lorakit.runs.result import summary

SMALL = Table(
    ("split", "metric", "ours"),
    (("validation", "f1", "92.00"), ("test", "accuracy", "–")),
    "MRPC",
    names=2,
)
EVIL = "<script>&|_%"
HARD = Table(("model",), ((EVIL,), ("a\\b*c*[d]`e`~f^g#h$i${j}",), ("two\nlines",)), EVIL)


def test_plain():
    assert SMALL.plain().splitlines() == [
        "MRPC",
        "split       metric     ours",
        "──────────  ────────  ─────",
        "validation  f1        92.00",
        "test        accuracy      –",
    ]


def test_markdown():
    assert SMALL.markdown().splitlines() == [
        "MRPC",
        "",
        "| split | metric | ours |",
        "| :-- | :-- | --: |",
        "| validation | f1 | 92.00 |",
        "| test | accuracy | – |",
    ]


def test_csv():
    assert SMALL.csv() == "split,metric,ours\nvalidation,f1,92.00\ntest,accuracy,–\n"


def test_html():
    assert SMALL.html() == (
        '<table><caption>MRPC</caption><thead><tr><th scope="col" class="name">split</th>'
        '<th scope="col" class="name">metric</th><th scope="col">ours</th></tr></thead><tbody>'
        '<tr><th scope="row" class="name">validation</th>'
        '<th scope="row" class="name">f1</th><td>92.00</td></tr>'
        '<tr><th scope="row" class="name">test</th>'
        '<th scope="row" class="name">accuracy</th><td>–</td></tr>'
        "</tbody></table>"
    )


def test_latex():
    assert SMALL.latex().splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{MRPC}",
        r"\begin{tabular}{llr}",
        r"\toprule",
        r"split & metric & ours \\",
        r"\midrule",
        r"validation & f1 & 92.00 \\",
        r"test & accuracy & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_markdown_escapes():
    text = HARD.markdown()
    assert "| &#60;script&#62;&#38;\\|\\_% |" in text
    assert "| a\\\\b\\*c\\*\\[d\\]\\`e\\`&#126;f^g#h&#36;i&#36;{j} |" in text
    assert "| two lines |" in text
    # a reader that undoes entities and backslashes has the cell again
    cell = text.splitlines()[4].removeprefix("| ").removesuffix(" |")
    assert re.sub(r"\\([\\`*_\[\]|])", r"\1", html.unescape(cell)) == EVIL


def test_html_escapes():
    text = HARD.html()
    assert "<script" not in text
    assert html.unescape(re.findall("<th.*?>(.*?)</th>", text)[1]) == EVIL


def test_csv_comes_back():
    assert [row[0] for row in csv.reader(io.StringIO(HARD.csv()))] == [
        HARD.header[0],
        *(row[0] for row in HARD.rows),
    ]


def test_latex_escapes():
    lines = HARD.latex().splitlines()
    assert lines[2] == r"\caption{\textless{}script\textgreater{}\&\textbar{}\_\%}"
    assert (
        r"a\textbackslash{}b*c*[d]`e`\textasciitilde{}f\textasciicircum{}g\#h\$i\$\{j\} \\" in lines
    )
    assert r"two lines \\" in lines


WIDE = Table.of(
    [("name", ["a", "b"]), *((f"score {n}", [f"{n}.00", f"{n}.50"]) for n in range(7))], "caption"
)


@pytest.mark.parametrize("width", [24, 25, 40, 60])
def test_plain_continues_below_what_a_line_has_no_room_for(width):
    parts = WIDE.plain(width).removeprefix("caption\n").split("\n\n")
    assert len(parts) > 1
    found = []
    for part in parts:
        header, rule, *rows = [re.split(r"\s{2,}", line) for line in part.splitlines()]
        assert (header[0], [row[0] for row in rows]) == ("name", ["a", "b"])
        assert max(map(len, part.splitlines())) <= width
        assert len(rule) == len(header)
        found += zip(header[1:], *(row[1:] for row in rows), strict=True)
    assert found == list(zip(WIDE.header[1:], *(row[1:] for row in WIDE.rows), strict=True))


@pytest.mark.parametrize("width", [None, 70, 71])
def test_plain_is_one_table_where_it_fits(width):
    """7 columns of 7 characters, a name of 4, and the gaps: 67."""
    assert WIDE.plain(width) == WIDE.plain()
    assert max(map(len, WIDE.plain().splitlines())) == 67


def test_next_to_long_names_lines_wrap():
    table = Table.of([("name", ["n" * 52]), ("score", ["1"]), ("other", ["2"])])
    assert table.plain(80) == table.plain(60) == table.plain()


def test_a_column_that_is_wider_than_a_line_is_alone():
    table = Table.of([("n", ["a"]), ("x", ["1" * 30]), ("y", ["2"])])
    assert [len(part.splitlines()) for part in table.plain(20).split("\n\n")] == [3, 3]


def test_a_terminal_has_no_wider_line(monkeypatch, capsys):
    monkeypatch.setattr("lorakit.cli.output.get_terminal_size", lambda: os.terminal_size((40, 24)))
    give({}, False, WIDE)
    assert capsys.readouterr().out.rstrip("\n") == WIDE.plain()  # a pipe
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    give({}, False, WIDE)
    assert capsys.readouterr().out.rstrip("\n") == WIDE.plain(40)


def test_a_table_of_names_is_wrapped_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    give({}, False, Table.of([("a", ["one " * 9]), ("b", ["two " * 9])], "caption", names=2))
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert lines[0] == "caption"
    assert max(map(len, lines)) <= 60
    assert len(lines) > 3


def test_plain_keeps_a_cell_on_its_line():
    assert len(HARD.plain().splitlines()) == 1 + 2 + len(HARD.rows)


THREE_SEEDS = """\
glue_mrpc: glue/mrpc, roberta-base, lora; published: Table 2
split       metric    untrained  ours (mean ± std of 3 seeds)  median   published  difference    note
──────────  ────────  ─────────  ────────────────────────────  ──────  ──────────  ──────────  ──────
validation  accuracy      32.50                  89.97 ± 0.45   90.00  89.7 ± 0.7       +0.27  inside
validation  f1                –                  92.00 ± 0.00   92.00           –           –       –
"""  # noqa: E501 (as it is printed)


def test_score_table_of_three_seeds(make_result):
    assert score_table(make_result()).plain().splitlines() == THREE_SEEDS.splitlines()


@pytest.mark.parametrize(
    ("accuracies", "header"),
    [
        ((90.0,), ("split", "metric", "untrained", "ours", "published", "difference", "note")),
        (
            (90.0, 91.0),
            (
                "split",
                "metric",
                "untrained",
                "ours (mean ± std of 2 seeds)",
                "published",
                "difference",
                "note",
            ),
        ),
    ],
)
def test_no_median_below_three_seeds(make_result, accuracies, header):
    assert score_table(make_result(accuracies)).header == header


def test_no_published_columns_without_a_published_number(make_result):
    table = score_table(make_result((90.0,), published={}))
    assert table.header == ("split", "metric", "untrained", "ours")
    assert table.rows[0] == ("validation", "accuracy", "31.50", "90.00")
    assert "published" not in table.caption


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({}, "inside"),
        ({"comparable": False}, "another setting"),
        ({"published": {"accuracy": Published(value=95.0, spread=0.1)}}, "outside"),
        ({"published": {"accuracy": Published(value=95.0)}}, "–"),
    ],
)
def test_the_note(make_result, more, note):
    assert score_table(make_result(**more)).rows[0][-1] == note


def test_a_score_that_is_not_a_number_is_a_dash(make_result):
    assert score_table(make_result((math.nan,))).rows[0][3:] == ("–", "89.7 ± 0.7", "–", "–")
    assert score_table(make_result((math.nan, 90.0))).rows[0][3] == "–"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Published(value=90, spread=1), "90.0 ± 1.0"),
        (Published(value=8.85, spread=0.02), "8.85 ± 0.02"),
        (Published(value=70.4), "70.4"),
    ],
)
def test_published_numbers_stand_as_they_were_printed(make_result, number, text):
    assert published(summary(make_result(published={"accuracy": number}))[0]) == text


def test_comparison(make_result):
    full = {"name": "full"}
    counts = make_result().counts.model_copy(update={"trainable": 124055040})
    results = [
        make_result(),
        make_result((78.0,), task="glue/rte"),
        make_result((90.5,), method=full, counts=counts),
    ]
    assert comparison(results).plain().splitlines() == [
        "model         method      trainable  glue/mrpc accuracy  glue/rte accuracy",
        "────────────  ────────  ───────────  ──────────────────  ─────────────────",
        "roberta-base  lora r=8      294,912        89.97 ± 0.45              78.00",
        "roberta-base  full      124,055,040               90.50                  –",
    ]


def test_comparison_tells_methods_apart_by_what_differs(make_result):
    lora = {"name": "lora", "targets": ["query"], "r": 8, "alpha": 16.0}
    wide = lora | {"targets": ["query", "value"], "alpha": 32.0}
    table = comparison([make_result(method=lora), make_result(method=wide)])
    assert [row[1] for row in table.rows] == [
        "lora targets=query r=8 alpha=16.0",
        "lora targets=query+value r=8 alpha=32.0",
    ]


def test_comparison_has_a_column_for_each_split_and_data_set(make_result):
    """Own files all have the task name of their kind."""
    values = [{"task": {"name": "classification", "train": f"{name}.jsonl"}} for name in ("a", "b")]
    scores = {"test": {"accuracy": 70.0}}
    other_split = make_result().seeds[0].model_copy(update={"scores": scores})
    results = [
        make_result((80.0,), recipe="a", recipe_values=values[0]),
        make_result((90.0,), recipe="b", recipe_values=values[1]),
        make_result(recipe="c", recipe_values=values[0], splits=("test",), seeds=(other_split,)),
        make_result((85.0,), recipe="d", recipe_values=values[0] | {"data": {"limit": {}}}),
    ]
    table = comparison([result.model_copy(update={"task": "classification"}) for result in results])
    assert table.header[3:] == (
        "classification validation accuracy (a)",
        "classification validation accuracy (b)",
        "classification test accuracy",
    )
    assert [row[3:] for row in table.rows] == [
        ("80.00", "–", "–"),
        ("–", "90.00", "–"),
        ("–", "–", "70.00"),
        ("85.00", "–", "–"),
    ]


def test_a_slice_has_a_column_of_its_own(make_result):
    task = {"task": {"name": "t"}}
    table = comparison(
        [
            make_result((80.0,), recipe="all", recipe_values=task | {"data": {"limit": {}}}),
            make_result(
                (90.0,), recipe="few", recipe_values=task | {"data": {"limit": {"validation": 9}}}
            ),
        ]
    )
    assert [row[3:] for row in table.rows] == [("80.00", "90.00")]


def test_comparison_hides_no_result(make_result):
    table = comparison([make_result((80.0,), recipe="slow"), make_result((90.0,), recipe="fast")])
    assert [(row[1], row[-1]) for row in table.rows] == [
        ("lora r=8 (slow)", "80.00"),
        ("lora r=8 (fast)", "90.00"),
    ]


@pytest.mark.parametrize(
    "cell", ["=1+1", "@SUM(A1)", "+1+cmd|' /C calc'!A0", "-x", "\t=1"], ids=ascii
)
def test_a_name_is_no_formula_in_a_spreadsheet(cell):
    [_, [first, _]] = csv.reader(io.StringIO(Table(("name", "n"), ((cell, "1"),)).csv()))
    assert first == f"'{cell}"


@pytest.mark.parametrize(
    "cell", ["-1.5", "+2.00", "-0.10 ± 0.2", "-1e-05", "–", "1,234", "name", "", "a=b"]
)
def test_numbers_and_names_stay(cell):
    [_, [first, _]] = csv.reader(io.StringIO(Table(("name", "n"), ((cell, "1"),)).csv()))
    assert first == cell
