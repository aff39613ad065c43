"""WikiSQL's comparison, case by case with the official code, and what a hostile query cannot do."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from lorakit.errors import DataError
from lorakit.metrics import _wikisql
from lorakit.metrics._wikisql import (
    Query,
    SqlTable,
    logical_form,
    opened,
    result,
    run,
    same_result,
    statement,
)
from lorakit.tasks._sql import to_sql, with_numbers
from lorakit.tasks.wikisql import WikiSql, _query

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "assets/wikisql/golden.json").read_text(encoding="utf-8")
)
HEADERS = {table["id"]: table["header"] for table in GOLDEN["tables"]}
TABLES = {
    t["id"]: SqlTable(tuple(t["types"]), tuple(tuple(row) for row in t["rows"]))
    for t in GOLDEN["tables"]
}
SMALL = SqlTable(("text", "real"), (("Wren", 2.0), ("OWL", 3.5), ("", None)))


def query(sql: dict) -> Query:
    return Query(
        sql["sel"], sql["agg"], tuple((at, operator, value) for at, operator, value in sql["conds"])
    )


@pytest.fixture(scope="module")
def bases():
    found = {name: opened(table) for name, table in TABLES.items()}
    yield found
    for base in found.values():
        base.close()


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["table"])
def test_the_official_evaluator_says_the_same(case, bases):
    """The official code wrote tests/assets/wikisql/golden.json; its first line says how."""
    name, gold = case["table"], query(case["gold"])
    task = WikiSql()
    said = _query(task.to_prediction(case["line"]), HEADERS[name])
    assert (said is not None and said.logical_form() == gold.logical_form()) == case["lf"]
    gives = None if said is None else result(said, TABLES[name], bases[name])
    assert gives == case["gives"]
    assert (gives is not None and gives == result(gold, TABLES[name], bases[name])) == case["ex"]


def test_the_golden_cases_are_of_every_kind():
    cases = GOLDEN["cases"]
    assert len(cases) >= 150
    kinds = {(case["ex"], case["lf"], case["gives"] is None) for case in cases}
    assert {
        (True, True, False),
        (True, False, False),
        (False, False, False),
        (False, False, True),
    } <= kinds


@pytest.mark.parametrize(
    ("said", "same"),
    [
        (Query(0, 0, ((1, 1, "B"), (0, 0, 5))), True),  # order, case, and 5 is "5"
        (Query(0, 0, ((0, 0, "5"), (1, 1, "b"), (1, 1, "B"))), True),  # one twice
        (Query(0, 0, ((0, 0, 5.0), (1, 1, "b"))), False),  # "5.0"
        (Query(0, 0, ((0, 0, "5 "), (1, 1, "b"))), False),
        (Query(0, 0, ((0, 0, "5"),)), False),
        (Query(1, 0, ((0, 0, "5"), (1, 1, "b"))), False),
        (Query(0, 3, ((0, 0, "5"), (1, 1, "b"))), False),
        (Query(0, 0, ((0, 0, "5"), (1, 2, "b"))), False),
        (None, False),
    ],
)
def test_the_same_query(said, same):
    gold = Query(0, 0, ((0, 0, "5"), (1, 1, "b")))
    assert logical_form([said], [gold]) == {"logical_form_accuracy": float(same)}


@pytest.mark.parametrize(
    ("asked", "gives"),
    [
        (Query(0), ["wren", "owl", ""]),
        (Query(0, 0, ((0, 0, "WREN"),)), ["wren"]),
        (Query(0, 0, ((1, 0, "2.0"),)), ["wren"]),
        (Query(0, 0, ((1, 0, "about 2 or 3"),)), ["wren"]),  # the first number of a text
        (Query(0, 0, ((1, 0, "0,002.0"),)), ["wren"]),  # commas of thousands are left out
        (
            Query(0, 0, ((1, 1, 2), (1, 1, 3))),
            ["owl"],
        ),  # two conditions on a column share the last value
        (Query(1, 4), [5.5]),
        (Query(1, 1, ((0, 0, "none"),)), [None]),
        (Query(1, 0, ((0, 0, "none"),)), []),
        (Query(0, 0, ((1, 0, "no number"),)), None),
        (Query(2), None),
        (Query(-1), None),
        (Query("col0"), None),
        (Query(0, 9), None),
        (Query(0, 0, ((0, 3, "wren"),)), None),  # OP is no operator
        (Query(0, 0, ((0, 0, 10**30),)), None),
        (Query(0, 0, ((0, 0, "\ud800"),)), None),
        (Query(0, 0, ((1, 0, "9" * 5000),)), []),
        (Query(0, 0, ((0, 0, "x'; DROP TABLE content; --"),)), []),
    ],
)
def test_results(asked, gives):
    with closing(opened(SMALL)) as base:
        assert result(asked, SMALL, base) == gives
        assert run(base, "SELECT col0 FROM content", {}) == ["wren", "owl", ""]


def test_execution_counts_over_tables():
    gold = [Query(0), Query(0), Query(1, 1), Query(1, 2)]
    said = [Query(0), None, Query(1, 1, ((1, 1, 1),)), Query(1, 1)]
    names = ["a", "b", "a", "b"]
    assert same_result(said, gold, names, {"a": SMALL, "b": SMALL}) == [True, False, True, False]
    with pytest.raises(
        DataError, match=r"reference 0 \(from 0\) cannot be run on the table a: Query\(column=7"
    ):
        same_result([None], [Query(7)], ["a"], {"a": SMALL})


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO content VALUES ('x', 1)",
        "DELETE FROM content",
        "UPDATE content SET col0 = 'x'",
        "DROP TABLE content",
        "CREATE TABLE other (a text)",
        "CREATE TEMP TABLE other (a text)",
        "ATTACH DATABASE '{file}' AS other",
        "VACUUM INTO '{file}'",
        "PRAGMA query_only=OFF",
        "PRAGMA database_list",
        "BEGIN",
        "SELECT load_extension('x')",
        "SELECT randomblob(1000000000)",
        "SELECT zeroblob(1000000000)",
        "SELECT group_concat(col0) FROM content",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
    ],
)
def test_nothing_but_selecting_is_permitted(sql, tmp_path):
    file = tmp_path / "other.db"
    with closing(opened(SMALL)) as base:
        with pytest.raises(sqlite3.Error):
            run(base, sql.format(file=file), {})
        assert run(base, "SELECT COUNT(col0) FROM content", {}) == [3]
    assert not file.exists()


def test_the_database_is_read_only_even_without_the_authorizer():
    with closing(opened(SMALL)) as base:
        base.set_authorizer(lambda *_: sqlite3.SQLITE_OK)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            run(base, "DELETE FROM content", {})


def test_a_slow_query_ends(monkeypatch):
    monkeypatch.setattr(_wikisql, "SECONDS", 0.2)
    many = SqlTable(("real",), tuple((float(i),) for i in range(300)))
    start = time.monotonic()
    with closing(opened(many)) as base:
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            run(
                base,
                "SELECT COUNT(a.col0) FROM content a, content b, content c, content d, content e",
                {},
            )
        assert time.monotonic() - start < 10
        assert run(base, "SELECT COUNT(col0) FROM content", {}) == [300], (
            "the next one has its own time"
        )


def test_the_time_that_a_query_waits_does_not_count(monkeypatch):
    monkeypatch.setattr(_wikisql, "SECONDS", 0.1)
    many = SqlTable(("real",), tuple((float(i),) for i in range(2000)))
    with closing(opened(many)) as base:
        base.create_function("sum", 1, lambda value: None if value else time.sleep(0.2))
        assert len(run(base, "SELECT sum(col0) FROM content", {})) == 2000


def test_many_rows_are_refused(monkeypatch):
    monkeypatch.setattr(_wikisql, "ROWS", 2)
    with closing(opened(SMALL)) as base:
        with pytest.raises(ValueError, match="more than 2 rows"):
            run(base, "SELECT col0 FROM content", {})
        assert result(Query(0), SMALL, base) is None


def test_the_statement_holds_nothing_of_the_query_but_numbers():
    hostile = Query(0, 1, ((1, 0, "1); DROP TABLE content"), (0, 1, "'")))
    assert statement(hostile, SMALL.types) == (
        "SELECT MAX(col0) FROM content WHERE col1 = :col1 AND col0 > :col0",
        {"col1": 1.0, "col0": "'"},
    )


@pytest.mark.parametrize(
    ("types", "rows", "message"),
    [
        (("text", "real); DROP TABLE x"), (), "columns of type 'real\\); DROP"),
        (("real",), ((2**63 - 1,), (-(2**63),), (2**63,)), str(2**63)),
        (("text",), (("a\ud800",),), r"ud800"),
        (("text",), (("a", "b"),), "a row of 2 cells in a table of 1 columns"),
    ],
)
def test_a_wrong_table(types, rows, message):
    with pytest.raises(DataError, match=message):
        SqlTable(types, rows)


def test_placing_and_writing_agree_with_the_golden_queries():
    for case in GOLDEN["cases"]:
        gold = query(case["gold"])
        assert with_numbers(gold, HEADERS[case["table"]]) == gold
        assert to_sql(gold).startswith("SELECT ")
