"""Chat formats: how rows hold chats, one file per format (`task.format`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lorakit.errors import DataError
from lorakit.registry import Registry
from lorakit.tasks._formats._base import Chat, Continued, Format, Reading

formats: Registry[Format] = Registry("lorakit.tasks._formats", "format")


class Recognised(NamedTuple):
    """A format that rows have. why: what in them shows it. others: formats that fit, too."""

    format: Format
    why: str
    others: tuple[str, ...]


def recognised(rows: Sequence[Mapping[str, Any]], where: str) -> Recognised:
    """The format of some rows: that of the first row that has one.

    Of several, the one with the lowest rank. DataError: none fits.
    """
    known = sorted((formats.get(name) for name in formats.names()), key=lambda found: found.rank)
    for row in rows:
        reasons = [(found, why) for found in known if (why := found.reason(row))]
        if reasons:
            first, why = reasons[0]
            return Recognised(first, why, tuple(found.name for found, _ in reasons[1:]))
    columns = ", ".join(rows[0]) if rows else "none"
    asked = "".join(f"\n  - {found.name}: {found.looks_like}" for found in known)
    raise DataError(
        f"{where}: no format fits its columns ({columns}); task.columns gives other names to "
        f"columns, and task.format forces one of:{asked}"
    )


__all__ = ["Chat", "Continued", "Format", "Reading", "Recognised", "formats", "recognised"]
