"""WikiSQL's questions and tables: from its .jsonl files, packed or not, or from the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict

from lorakit.config import Config
from lorakit.errors import DataError
from lorakit.metrics._wikisql import AGGREGATES, OPERATORS, Query, Table, Value
from lorakit.tasks._files import listing, locate
from lorakit.tasks._packed import raw_lines
from lorakit.tasks._sources import hub_table, shaped

HUB = "Salesforce/wikisql"
NAMES = {"train": "train", "validation": "dev", "test": "test"}
HOMES = ("", "data", "wikisql/data")
GET_IT = "data.tar.bz2 of https://github.com/salesforce/WikiSQL holds the files"
_REST = r"(\.[\w-]+)*\.jsonl(\.gz)?"


class Question(NamedTuple):
    """where: file and line, for a message."""

    where: str
    table: str
    text: str
    query: Query


class Sheet(NamedTuple):
    """A table's column names, None where one is unknown, and its content where that is known."""

    header: list[str | None]
    content: Table | None


class _Open(Config):
    model_config = ConfigDict(extra="ignore")


class _Sql(_Open):
    sel: int
    agg: int
    conds: list[list[Value]]


class _Question(_Open):
    table_id: str
    question: str
    sql: _Sql


class _Table(_Open):
    id: str
    header: list[str | None]
    types: list[str | None] = []
    rows: list[list[Value | None]] = []


def read(
    split: str, path: str | None, revision: str | None
) -> tuple[list[Question], dict[str, Sheet]]:
    """The questions of a split in order, and the tables by id. DataError: file and line, what is wrong, what to do."""
    if path is None:
        return _of_the_hub(split, revision)
    home = _home(path, split)
    file = official(home, split, "questions")
    questions = [_question(shaped(_Question, row, where), where) for where, row in jsonl(file)]
    return questions, sheets(split, path, revision)


def sheets(split: str, path: str | None, revision: str | None) -> dict[str, Sheet]:
    """The tables of a split by id."""
    if path is None:
        return _of_the_hub(split, revision)[1]
    file = official(_home(path, split), split, "tables")
    tables = [(where, shaped(_Table, row, where)) for where, row in jsonl(file)]
    return {table.id: _sheet(table, where) for where, table in tables}


def _home(path: str, split: str) -> Path:
    folder = locate(path)
    if not folder.is_dir():
        raise DataError(
            f"data.path: no folder {folder}; give the one that holds {NAMES[split]}.jsonl. {GET_IT}"
        )
    homes = [folder / home for home in HOMES if (folder / home).is_dir()]
    return next(
        (home for home in homes if any(_found(home, name, _REST) for name in NAMES.values())),
        folder,
    )


def official(home: Path, split: str, kind: str) -> Path:
    """The one file of a split: `dev.jsonl`, or one whose name goes on after `dev.`; `dev.tables.jsonl`, else with
    `headers`, which has no rows. DataError: none, or several that are as good."""
    name = NAMES[split]
    questions = r"(\.(?!tables\.|jsonl)[\w-]+)*\.jsonl(\.gz)?"
    tables = r"(\.(?!tables\.)[\w-]+)*\.tables\.jsonl(\.gz)?"
    headers = tables.replace(r"\.tables", r"\.tables\.headers")
    exact = {"questions": [".jsonl", ".jsonl.gz"], "tables": [".tables.jsonl", ".tables.jsonl.gz"]}[
        kind
    ]
    patterns = [
        *map(re.escape, exact),
        *([questions] if kind == "questions" else [tables, headers]),
    ]
    for pattern in patterns:
        found = _found(home, name, pattern)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found)
            raise DataError(
                f"{home}: several files of {kind} for the {split} split ({names}); leave one, or name one "
                f"{name}{exact[0]}"
            )
    raise DataError(f"{home}: no {name}{exact[0]} (it holds: {listing(home)}). {GET_IT}")


def _found(home: Path, name: str, pattern: str) -> list[Path]:
    return sorted(
        file for file in home.iterdir() if re.fullmatch(re.escape(name) + pattern, file.name)
    )


def jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    """`file:line` and the value of every line that is not blank. DataError: one that is not JSON, a broken .gz."""
    for number, line in raw_lines(path):
        if line.strip():
            yield f"{path}:{number}", _json(line, f"{path}:{number}")


def _json(line: bytes, where: str) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from None


def _question(row: _Question, where: str) -> Question:
    return Question(where, row.table_id, row.question, query_of(row.sql.model_dump(), where))


def query_of(sql: Any, where: str) -> Query:
    """From `{"sel", "agg", "conds"}`. DataError, with `where`: it is of another form, a number is none that there is.

    Whether the table has the columns is not looked at.
    """
    row = shaped(_Sql, sql, where)
    for condition in row.conds:
        if len(condition) != 3 or type(condition[0]) is not int or type(condition[1]) is not int:
            raise DataError(
                f"{where}: condition {condition!r}; it is [column, operator, value], the first two numbers"
            )
        if (
            not 0 <= condition[1] < len(OPERATORS)
            or condition[0] < 0
            or condition[2] != condition[2]
        ):
            raise DataError(
                f"{where}: condition {condition!r}; a column is from 0, an operator in 0..3"
            )
    if not 0 <= row.agg < len(AGGREGATES) or row.sel < 0:
        raise DataError(
            f"{where}: sel {row.sel}, agg {row.agg}; a column is from 0, an aggregate in 0..5"
        )
    return Query(
        row.sel,
        row.agg,
        tuple((int(at), int(operator), value) for at, operator, value in row.conds),
    )


def _sheet(table: _Table, where: str) -> Sheet:
    if not table.rows or None in table.types:
        return Sheet(table.header, None)
    try:
        types, rows = (
            tuple(str(kind) for kind in table.types),
            tuple(tuple(row) for row in table.rows),
        )
        return Sheet(table.header, Table(types, rows))
    except DataError as error:
        raise DataError(f"{where}: table {table.id}: {error}") from None


def _of_the_hub(split: str, revision: str | None) -> tuple[list[Question], dict[str, Sheet]]:
    table = hub_table(
        HUB, f"default/{split}/*.parquet", split, revision, f"Give data.path=FOLDER. {GET_IT}"
    )
    questions, found = [], {}
    for number, row in enumerate(table):
        where = f"{HUB}, {split} row {number}"
        sheet, conds = row["table"], row["sql"]["conds"]
        sheet_id = sheet["id"]
        if sheet_id not in found:
            found[sheet_id] = _sheet(shaped(_Table, sheet, where), where)
        triples = zip(
            conds["column_index"], conds["operator_index"], conds["condition"], strict=True
        )
        sql = {
            "sel": row["sql"]["sel"],
            "agg": row["sql"]["agg"],
            "conds": [list(triple) for triple in triples],
        }
        questions.append(Question(where, sheet_id, row["question"], query_of(sql, where)))
    return questions, found
