"""What is odd about the rows of a file and yet may be meant: counted while it is read, and said once."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

log = logging.getLogger(__name__)

MISSING = frozenset(("nan", "none", "null", "n/a", "<na>", "nat"))
"""What programs write where a value is missing."""
SHOWN = 3


class Remarks:
    """Of the rows of one split."""

    def __init__(self) -> None:
        self.places: dict[str, list[str]] = {}
        self.forms: dict[str, dict[str, str]] = {}

    def note(self, what: str, where: str) -> None:
        self.places.setdefault(what, []).append(where)

    def text(self, text: str, column: str, where: str) -> None:
        """Of a text: it is empty, or says that it is missing."""
        if not text.strip():
            self.note(f"an empty text in column {column!r}", where)
        elif text.strip().lower() in MISSING:
            self.note(
                f"the text {text.strip()!r} in column {column!r}, as programs write what is missing",
                where,
            )

    def label(self, written: Any, label: str, where: str) -> None:
        """Of a label: how it is written in the file, and how it is read."""
        self.forms.setdefault(label, {}).setdefault(str(written), where)
        if label.lower() in MISSING - {"none"}:  # a class is often called that
            self.note(f"the label {label!r}, as programs write what is missing", where)

    def say(self, rows: int) -> None:
        """A warning for each kind, with the first places."""
        for what, places in self.places.items():
            log.warning("%d of %d rows have %s (%s)", len(places), rows, what, _shown(places))
        for label, forms in self.forms.items():
            if len(forms) > 1:
                written = ", ".join(
                    f"{form!r} ({where})" for form, where in list(forms.items())[:SHOWN]
                )
                log.warning(
                    "the label %r is written in %d ways, which are read as one: %s",
                    label,
                    len(forms),
                    written,
                )
        for alike in _alike(list(self.forms)):
            written = ", ".join(
                f"{label!r} ({next(iter(self.forms[label].values()))})" for label in alike
            )
            log.warning(
                "labels that differ in case, spaces or form alone are different classes: %s",
                written,
            )


def _alike(labels: Sequence[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for label in labels:
        plain = "".join(unicodedata.normalize("NFKC", label).casefold().split())
        with suppress(ValueError):  # "01" and "1" are one number
            plain = str(float(plain))
        groups.setdefault(plain, []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def _shown(places: Sequence[str]) -> str:
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return ", ".join(places[:SHOWN]) + more
