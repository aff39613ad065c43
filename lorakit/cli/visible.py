"""Text of other people made harmless: control characters are escaped before a terminal sees them.

Otherwise a prompt or a name could move the cursor, set colours, or reverse the direction of a line.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters (C0 without tab and newline, DEL, C1), Unicode's bidi controls and line
separators, and halves of surrogate pairs, which cannot be encoded."""
_PLAIN = dict(zip("─│╭╮╰╯–±×…→✓✗‖Δ", "- | + + + + - +/- x ... -> ok no || d".split(), strict=True))
"""Characters of lorakit's own tables and of the help -> ASCII, for terminals that have no more."""
CLOSED = 141
"""Exit code when the reader of stdout has closed it: 128 + SIGPIPE, as usual in a pipe."""


def visible(text: str) -> str:
    r"""The text with escapes for control characters: `\x1b`, `\u202e`; `\xff` for a byte that is
    not UTF-8."""
    return _CONTROLS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found.group())
    if 0xDC80 <= number <= 0xDCFF:  # Python's `surrogateescape` read a byte as this
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def json_safe(text: str) -> str:
    """Equivalent JSON with JSON's own escapes for control characters."""
    return _CONTROLS.sub(_json_escaped, text)


def _json_escaped(found: re.Match[str]) -> str:
    char = found.group()
    if char <= "\x1f":  # it is outside the strings, where an escape would not be JSON
        return char
    return f"\\u{ord(char):04x}"


def show(text: str) -> None:
    """Print a result for people on stdout."""
    with _ending_if_closed():
        print(visible(text))


def show_exactly(text: str) -> None:
    """Print a result for programs on stdout, in UTF-8 on every terminal."""
    sys.stdout.flush()
    with _ending_if_closed():
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()


def can_show(text: str) -> bool:
    """Whether stdout can print the text as it is."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeError:
        return False
    return _CONTROLS.search(text) is None


def complain(text: str) -> None:
    """Print on stderr; ignored if the reader has closed it."""
    with suppress(BrokenPipeError):
        print(visible(text), file=sys.stderr, flush=True)


def ready_streams() -> None:
    """Replace characters that a stream cannot encode, instead of raising an error."""
    codecs.register_error("lorakit", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="lorakit")


def finish_streams(code: int) -> int:
    """Flush stdout, and return the exit code; it is CLOSED if the reader has closed stdout."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        to_nobody(sys.stdout)
        return CLOSED
    return code


def to_nobody(stream: IO[str]) -> None:
    """Redirect a closed stream, because Python flushes it at exit and would print an error."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _ending_if_closed() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        to_nobody(sys.stdout)
        raise SystemExit(CLOSED) from None


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    unwritten = error.object[error.start : error.end]
    written = "".join(
        _PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode() for char in unwritten
    )
    return written, error.end
