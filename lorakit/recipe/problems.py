"""What is wrong with a recipe, in words: every problem with file, line, value and the nearest name that exists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from lorakit.errors import did_you_mean
from lorakit.recipe.source import Mark, Marks

Sections = Mapping[str, type[BaseModel]]
"""Dotted prefix ("", "method", "train" ...) -> the model that says which keys are known there."""
MOST = 100
"""Problems that are said in words."""


def describe(
    error: ValidationError, prefix: tuple[str, ...], marks: Marks, sections: Sections
) -> list[str]:
    """One line per problem of a pydantic error, in the order of the file."""
    found: dict[tuple[str, ...], str] = {}
    kinds: dict[tuple[str, ...], str] = {}
    items = error.errors(include_url=False)
    for item in items[:MOST]:
        path = (*prefix, *_plain(item["loc"]))
        if item["type"] == "extra_forbidden":  # the key as it was written, whatever it is
            path = (*prefix, *_plain(item["loc"][:-1]), str(item["loc"][-1]))
        if path not in found:
            found[path], kinds[path] = _sentence(item, path, sections), item["type"]
    shown = {path: text for path, text in found.items() if not _follows(kinds[path], path, found)}
    more = [f"and {len(items) - MOST:,} more"] if len(items) > MOST else []
    return [_line(path, text, marks) for path, text in shown.items()] + more


def _follows(kind: str, path: tuple[str, ...], found: Iterable[tuple[str, ...]]) -> bool:
    """Only another problem's echo: a list with a wrong item is too short as well, and a wrong `Target` is no text."""
    inside = any(other[: len(path)] == path and other != path for other in found)
    return inside and kind in ("too_short", "string_type")


def _line(path: tuple[str, ...], text: str, marks: Marks) -> str:
    if not path:  # of the whole recipe: the sentence begins with the key that it is about
        return f"{mark_of(tuple(text.split()[0].split('.')), marks)}: {text}"
    return f"{mark_of(path, marks)}: {'.'.join(path)}: {text}"


def _plain(loc: Iterable[int | str]) -> list[str]:
    # pydantic adds the branch of a union ("str", "Target", "function-before[...]") to a path; a reader knows keys only
    return [
        str(part)
        for part in loc
        if isinstance(part, int) or (part.islower() and part.isidentifier() and part != "str")
    ]


def _sentence(item: Any, path: tuple[str, ...], sections: Sections) -> str:
    value = _shown(item["input"])
    match item["type"]:
        case "extra_forbidden":
            return f"unknown key (its value is {value}){nearest_key(path, sections)}"
        case "missing":
            return "is missing, and has no default"
        case "literal_error":
            options = item["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            return f"{value} is not one of {item['ctx']['expected']}{did_you_mean(str(item['input']), options, n=1)}"
        case "tuple_type" | "list_type":
            return f"{value} should be a list" + (
                "" if isinstance(item["input"], dict) else f": [{value}]"
            )
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{value} should be a mapping of keys to values"
        case "too_short" | "too_long":
            limit = item["ctx"].get("min_length") or item["ctx"]["max_length"]
            word = "at least" if item["type"] == "too_short" else "at most"
            return f"{value} should have {word} {limit} item{'s' * (limit != 1)}"
        case _:
            message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
            return f"{value} {message}" if message.startswith("should") else message


def nearest_key(path: tuple[str, ...], sections: Sections) -> str:
    """A name that is known at this place, else one that is known elsewhere in a recipe."""
    here = sections.get(".".join(path[:-1]))
    if here is not None and (hint := did_you_mean(path[-1], here.model_fields, n=1)):
        return hint
    everywhere = {
        name: f"{at}.{name}".lstrip(".")
        for at, model in sections.items()
        for name in model.model_fields
    }
    near = get_close_matches(path[-1], everywhere, n=1, cutoff=0.7)
    if near:
        return f"; did you mean {everywhere[near[0]]!r}?"
    return f" (known here: {', '.join(here.model_fields)})" if here is not None else ""


def mark_of(path: tuple[str, ...], marks: Marks) -> Mark:
    """Where a value, or the nearest part of the recipe around it, was given."""
    for end in range(len(path), 0, -1):
        if path[:end] in marks:
            return marks[path[:end]]
        if below := [mark for at, mark in marks.items() if at[:end] == path[:end]]:
            return below[0]
    return next(iter(marks.values()), Mark("recipe"))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
