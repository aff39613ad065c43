"""The consoles: rich, with every text that reaches them made visible and none of it read as markup."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorakit.cli.visible import CLOSED, to_nobody, visible

NARROW = 60
"""Columns below which a table is as wide as it wants, and the terminal breaks its lines: squeezed, it says nothing."""


class Screen(Console):
    """Texts, cells, titles and headers all pass `render_str`: foreign ones cannot be told from ours, so none is markup.

    What has a style of its own is made by `styled`.
    """

    def render_str(self, text: str, **named: Any) -> Text:
        chosen: dict[str, Any] = named | {"markup": False, "emoji": False, "highlight": False}
        return super().render_str(visible(text), **chosen)

    def print(self, *objects: Any, **named: Any) -> None:
        # a path that is broken into two lines is no path: the terminal wraps by itself
        if all(isinstance(one, (str, Text)) for one in objects):
            named.setdefault("soft_wrap", True)
        narrow = self.width < NARROW and [one for one in objects if isinstance(one, Table)]
        if not narrow:
            super().print(*objects, **named)
            return
        before, self.width = self._width, max(_natural(self, table) for table in narrow)
        try:
            super().print(*objects, **named)
        finally:
            self._width = before

    def on_broken_pipe(self) -> None:
        """Nobody reads: a result is not wanted any more, but a training whose log is not read goes on."""
        self.quiet = True
        to_nobody(self.file)
        if not self.stderr:
            raise SystemExit(CLOSED)


def _natural(screen: Screen, table: Table) -> int:
    """The width that a table has where there is room."""
    return table.__rich_measure__(screen, screen.options.update(width=1000)).maximum


def styled(text: str, style: str = "") -> Text:
    """A text with a style; what acts on a terminal in it is made visible."""
    return Text(visible(text), style)


def line(*pieces: str | tuple[str, str]) -> Text:
    """Pieces of one line: texts, or (text, style)."""
    made = Text()
    for piece in pieces:
        text, style = (piece, "") if isinstance(piece, str) else piece
        made.append(visible(text), style)
    return made


def on_stderr(terminal: bool, quiet: bool) -> Screen:
    # a log file has no width: lines are not broken there
    width = None if terminal else 400
    return Screen(stderr=True, quiet=quiet, highlight=False, force_terminal=terminal, width=width)


def on_stdout() -> Screen:
    """For tables that are the result; as wide as they need where it is no terminal."""
    return Screen(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240)
