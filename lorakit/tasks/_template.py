"""A column's name, or a template over several: `"{question}\n### SQL:"`. Names alone stand in the braces."""

from __future__ import annotations

from string import Formatter
from typing import Any

from lorakit.errors import DataError, RecipeError

Spans = tuple[tuple[int, int], ...]


def is_column(value: str) -> bool:
    """A name without braces is a column."""
    return "{" not in value and "}" not in value


def columns_of(value: str) -> tuple[str, ...]:
    """The columns that it needs, each once, in order. RecipeError: a brace too many, or more than a name in braces."""
    if is_column(value):
        return (value,)
    names = [name for _, name in _parts(value) if name is not None]
    if not names:
        raise RecipeError(f'{value!r} names no column; write it in braces, as in "{{question}}"')
    return tuple(dict.fromkeys(names))


def filled(value: str, row: dict[str, Any], where: str) -> str:
    """The text for one row. DataError: a column holds something else than a text; a number is written as it is."""
    return filled_with_spans(value, row, where)[0]


def filled_with_spans(value: str, row: dict[str, Any], where: str) -> tuple[str, Spans]:
    """As `filled`, and from where to where the columns of a template stand in it. A column that is given by its name
    alone is a text that was written as a whole, and has none."""
    if is_column(value):
        return text_of(row, value, where), ()
    text, spans = "", []
    for literal, name in _parts(value):
        text += literal
        if name is not None:
            begin, text = len(text), text + text_of(row, name, where, numbers=True)
            spans.append((begin, len(text)))
    return text, tuple(spans)


def text_of(row: dict[str, Any], column: str, where: str, numbers: bool = False) -> str:
    """The text in a column; numbers: one is taken as it is written. DataError: it holds something else, or nothing."""
    value = row[column]
    if numbers and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: column {column!r} holds {value!r}, not a text")
    return value


def _parts(value: str) -> list[tuple[str, str | None]]:
    try:
        parsed = list(Formatter().parse(value))
    except ValueError as error:
        raise RecipeError(
            f"{value!r} is no template: {error}; a brace that is meant is doubled, {{{{ or }}}}"
        ) from None
    for _, name, form, conversion in parsed:
        if name is not None and (
            not name or form or conversion or any(sign in name for sign in ".[]")
        ):
            raise RecipeError(
                f"{value!r}: give the name of a column in the braces and nothing else, not {name!r}"
            )
    return [(literal, name) for literal, name, _, _ in parsed]
