"""WikiSQL's queries as one line of SQL, and back: parse(written(q)) is q, to the type of every value.

    SELECT MAX("Year") FROM table WHERE "Club ""A"" no." = 'O''Neill' AND col4 > 5

A column is its quoted name, or col<number>; a text is quoted, a number is not. A quote in quotes is doubled; a
backslash and a line break are written \\\\, \\n and \\r.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from lorakit.metrics._wikisql import AGGREGATES, OPERATORS, Query, Value

_SPACE = re.compile(r"\s*")
_SELECT = re.compile(r"SELECT\b", re.IGNORECASE)
_AGGREGATE = re.compile(rf"({'|'.join(AGGREGATES[1:])})\s*\(", re.IGNORECASE)
_CLOSE = re.compile(r"\)")
_FROM = re.compile(r"FROM\s+table\b", re.IGNORECASE)
_WHERE = re.compile(r"WHERE\b", re.IGNORECASE)
_AND = re.compile(r"AND\b", re.IGNORECASE)
_OPERATOR = re.compile("|".join(OPERATORS))
_END = re.compile(r";?\s*(--.*)?\Z", re.DOTALL)
_NAME = re.compile(r'"((?:[^"]|"")*)"')
_INDEX = re.compile(r"col([0-9]{1,5})\b")
_TEXT = re.compile(r"'((?:[^']|'')*)'")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?(?![\w.])")
_ESCAPED = re.compile(r"\\([\\nr])")
_BREAKS = {"\\": "\\", "n": "\n", "r": "\r"}


def written(query: Query) -> str:
    """The query in one line."""
    column = _column(query.column)
    aggregate = AGGREGATES[query.aggregate]
    conditions = [
        f"{_column(at)} {OPERATORS[operator]} {_value(value)}"
        for at, operator, value in query.conditions
    ]
    wanted = f"{aggregate}({column})" if aggregate else column
    return f"SELECT {wanted} FROM table" + (
        " WHERE " + " AND ".join(conditions) if conditions else ""
    )


def quoted(text: str, quote: str) -> str:
    """The text in quotes, in one line."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return quote + text.replace(quote, 2 * quote) + quote


def _column(column: int | str) -> str:
    return quoted(column, '"') if isinstance(column, str) else f"col{column}"


def _value(value: Value) -> str:
    return quoted(value, "'") if isinstance(value, str) else repr(value)


def parse(text: str) -> Query | None:
    """The query, its columns by name or number as they are written; None where the text is of another form.

    Keywords may be of any case. What follows `;` or `--` at the end does not count.
    """
    try:
        return _Reader(text).query()
    except ValueError:
        return None


class _Reader:
    """A text and a place in it. ValueError: it goes on differently."""

    def __init__(self, text: str):
        self.text = text
        self.at = 0

    def skip(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found

    def take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = self.skip(pattern)
        if found is None:
            raise ValueError(f"{pattern.pattern} is expected at {self.at}")
        return found

    def query(self) -> Query:
        self.take(_SELECT)
        aggregate = self.skip(_AGGREGATE)
        column = self.column()
        if aggregate:
            self.take(_CLOSE)
        self.take(_FROM)
        conditions = []
        more = self.skip(_WHERE)
        while more:
            conditions.append(
                (self.column(), OPERATORS.index(self.take(_OPERATOR)[0]), self.value())
            )
            more = self.skip(_AND)
        self.take(_END)
        number = AGGREGATES.index(aggregate[1].upper()) if aggregate else 0
        return Query(column, number, tuple(conditions))

    def column(self) -> int | str:
        name = self.skip(_NAME)
        return _unquoted(name[1], '"') if name else int(self.take(_INDEX)[1])

    def value(self) -> Value:
        text = self.skip(_TEXT)
        if text:
            return _unquoted(text[1], "'")
        number = self.take(_NUMBER)
        value = float(number[0]) if number[1] or number[2] else int(number[0])
        if not math.isfinite(value):
            raise ValueError(f"{number[0]} is beyond what a number can be")
        return value


def _unquoted(text: str, quote: str) -> str:
    return _ESCAPED.sub(lambda found: _BREAKS[found[1]], text.replace(2 * quote, quote))


def spellings(header: Sequence[str | None]) -> list[int | str]:
    """How each column of a table is written: by its name, or by its number where it has none or shares it."""
    return [
        name if name and name.strip() and header.count(name) == 1 else at
        for at, name in enumerate(header)
    ]


def spelled(query: Query, header: Sequence[str | None]) -> Query:
    """The query with its column numbers replaced by names, as far as there are."""
    names = spellings(header)
    conditions = tuple(
        (names[int(at)], operator, value) for at, operator, value in query.conditions
    )
    return Query(names[int(query.column)], query.aggregate, conditions)


def placed(query: Query, header: Sequence[str | None]) -> Query | None:
    """The query with its column names replaced by numbers; None where the table does not have such a column."""
    numbers = {name: at for at, name in enumerate(spellings(header))} | {
        at: at for at in range(len(header))
    }
    try:
        conditions = tuple(
            (numbers[at], operator, value) for at, operator, value in query.conditions
        )
        return Query(numbers[query.column], query.aggregate, conditions)
    except KeyError:
        return None
