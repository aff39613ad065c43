"""Origins: where each value of a recipe comes from, as the comments of its file say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lorakit.recipe.problems import mark_of
from lorakit.recipe.source import KeyPath, Mark, Marks

SOURCES = ("paper", "script", "ours")
"""First word of a comment. script: the reference code of the paper."""


@dataclass(frozen=True)
class Origin:
    """Where one value comes from."""

    source: str
    """paper, script, ours, or command line."""
    note: str
    """The rest of the comment."""
    mark: Mark


def origins_of(data: dict[str, Any], marks: Marks) -> dict[str, Origin]:
    """Dotted key -> origin, for every value that was given.

    A line without a comment has the origin of the block around it.
    """
    return {".".join(path): _origin(path, marks) for path in _leaves(data)}


def _origin(path: KeyPath, marks: Marks) -> Origin:
    own = mark_of(path, marks)
    for end in range(len(path), 0, -1):
        mark = marks.get(path[:end])
        if mark is None:
            continue
        if mark.line == 0:
            return Origin("command line", "", own)
        word, _, note = mark.comment.partition(" ")
        source = word.rstrip(":;,")
        if source in SOURCES:
            return Origin(source, note.strip(), own)
    return Origin("ours", "", own)


def _leaves(data: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path
