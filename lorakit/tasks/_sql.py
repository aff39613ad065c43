"""WikiSQL's queries as one line of SQL, and back: parse_sql(to_sql(q)) is q, types included.

    SELECT MAX("Year") FROM table WHERE "Club ""A"" no." = 'O''Neill' AND col4 > 5

A column is its quoted name, or col<number>. A text is quoted, and a number is not. A quote inside
quotes is doubled; a backslash and a line break are written \\\\, \\n and \\r.
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


def to_sql(query: Query) -> str:
    """The query in one line."""
    column = _column(query.column)
    aggregate = AGGREGATES[query.aggregate]
    selected = f"{aggregate}({column})" if aggregate else column
    conditions = [
        f"{_column(at)} {OPERATORS[operator]} {_value(value)}"
        for at, operator, value in query.conditions
    ]
    where = " WHERE " + " AND ".join(conditions) if conditions else ""
    return f"SELECT {selected} FROM table{where}"


def quoted(text: str, quote: str) -> str:
    """The text in quotes, in one line."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return quote + text.replace(quote, 2 * quote) + quote


def _column(column: int | str) -> str:
    return quoted(column, '"') if isinstance(column, str) else f"col{column}"


def _value(value: Value) -> str:
    return quoted(value, "'") if isinstance(value, str) else repr(value)


def parse_sql(text: str) -> Query | None:
    """The query, with columns by name or number as written; None if the text has another form.

    Keywords may be in upper or lower case. Text after `;` or `--` at the end is ignored.
    """
    try:
        return _SqlReader(text).query()
    except ValueError:
        return None


class _SqlReader:
    """A text and the position up to which it has been read. ValueError: unexpected text."""

    def __init__(self, text: str):
        self.text = text
        self.at = 0

    def skip(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read the pattern if it comes next."""
        space = _SPACE.match(self.text, self.at)
        assert space is not None  # it matches nothing too
        self.at = space.end()
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Read the pattern, which must come next."""
        found = self.skip(pattern)
        if found is None:
            raise ValueError(f"expected {pattern.pattern} at {self.at}")
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
            at = self.column()
            operator = OPERATORS.index(self.take(_OPERATOR)[0])
            conditions.append((at, operator, self.value()))
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
            raise ValueError(f"{number[0]} is not a finite number")
        return value


def _unquoted(text: str, quote: str) -> str:
    return _ESCAPED.sub(lambda found: _BREAKS[found[1]], text.replace(2 * quote, quote))


def column_spellings(header: Sequence[str | None]) -> list[int | str]:
    """How each column of a table is written: by its name, or by its number if it does not have a
    name or shares it with another column."""
    return [
        name if name and name.strip() and header.count(name) == 1 else at
        for at, name in enumerate(header)
    ]


def with_names(query: Query, header: Sequence[str | None]) -> Query:
    """The query with the names of its columns, where they have one, instead of numbers."""
    # int(): a gold query has numbers, although the type of a column allows names
    names = column_spellings(header)
    conditions = tuple(
        (names[int(at)], operator, value) for at, operator, value in query.conditions
    )
    return Query(names[int(query.column)], query.aggregate, conditions)


def with_numbers(query: Query, header: Sequence[str | None]) -> Query | None:
    """The query with the numbers of its columns instead of names; None if a column is unknown."""
    numbers: dict[int | str, int] = {at: at for at in range(len(header))}
    numbers |= {name: at for at, name in enumerate(column_spellings(header))}
    try:
        conditions = tuple(
            (numbers[at], operator, value) for at, operator, value in query.conditions
        )
        return Query(numbers[query.column], query.aggregate, conditions)
    except KeyError:
        return None
