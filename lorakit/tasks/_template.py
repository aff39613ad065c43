"""Column templates: the name of a column, or a text with names in braces.

`"{question}\\n### SQL:"` is a template over the column `question`. Braces contain only a name.
"""

from __future__ import annotations

from string import Formatter
from typing import Any

from lorakit.errors import DataError, RecipeError

Spans = tuple[tuple[int, int], ...]
"""(start, end) of parts of a text."""


def is_column(value: str) -> bool:
    """Whether the value is a column's name: it has no braces."""
    return "{" not in value and "}" not in value


def columns_of(value: str) -> tuple[str, ...]:
    """The columns that a template needs, each once, in order.

    RecipeError: an unpaired brace, more than a name in braces, or no column at all.
    """
    if is_column(value):
        return (value,)
    names = [name for _, name in _parts(value) if name is not None]
    if not names:
        raise RecipeError(f'{value!r} names no column; write it in braces, as in "{{question}}"')
    return tuple(dict.fromkeys(names))


def filled(value: str, row: dict[str, Any], where: str) -> tuple[str, Spans]:
    """The text for a row, and the spans in it that come from columns of a template.

    A text from a single column has no spans: it was written as one text, special tokens included.
    DataError: a column does not hold a text or a number.
    """
    if is_column(value):
        return text_of(row, value, where), ()
    text = ""
    spans = []
    for literal, name in _parts(value):
        text += literal
        if name is not None:
            start = len(text)
            text += text_of(row, name, where, numbers=True)
            spans.append((start, len(text)))
    return text, tuple(spans)


def text_of(row: dict[str, Any], column: str, where: str, numbers: bool = False) -> str:
    """The text in a column; "" for a null or a NaN, as a .csv writes them. DataError: the column
    holds something else.

    numbers: a number becomes the text that Python writes for it.
    """
    value = row[column]
    if value is None or value != value:
        return ""
    if numbers and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: column {column!r} holds {value!r}, not a text")
    return value


def _parts(value: str) -> list[tuple[str, str | None]]:
    """(literal text, name of the column after it or None), in order."""
    try:
        parsed = list(Formatter().parse(value))
    except ValueError as error:
        raise RecipeError(
            f"{value!r} is not a template: {error}; write {{{{ or }}}} for a literal brace"
        ) from None
    for _, name, form, conversion in parsed:
        if name is None:
            continue
        # `{a.b}` and `{a[0]}` are allowed by Formatter and would look inside the value
        if not name or form or conversion or any(sign in name for sign in ".[]"):
            raise RecipeError(
                f"{value!r}: give only the name of a column in the braces, not {name!r}"
            )
    return [(literal, name) for literal, name, _, _ in parsed]
