"""Text that is not ours, made harmless: nothing in it moves the cursor, sets a colour or turns a line around."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

_ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters (C0 without tab and newline, DEL, C1), Unicode's bidi controls, line separators, and halves of
surrogate pairs, which no terminal takes."""
_PLAIN = {
    "─": "-",
    "–": "-",
    "±": "+/-",
    "×": "x",
    "…": "...",
    "→": "->",
    "✓": "ok",
    "✗": "no",
    "‖": "||",
    "Δ": "d",
}
"""What our own tables hold, for a terminal that has ASCII only."""
CLOSED = 141
"""Exit code where the reader of stdout has gone: 128 + SIGPIPE, as of any program in a pipe."""


def visible(text: str) -> str:
    r"""`\x1b` for an escape byte, `\u202e` for what turns text around; a byte of a name that is not UTF-8 as `\xff`."""
    return _ACTS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found.group())
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was read with `surrogateescape`
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def json_safe(text: str) -> str:
    """JSON that says the same, with the characters that act on a terminal as JSON's own escapes."""
    return _ACTS.sub(
        lambda found: f"\\u{ord(found.group()):04x}" if found.group() > "\x1f" else found.group(),
        text,
    )


def show(text: str, end: str = "\n") -> None:
    """A result for people, to stdout."""
    _out(visible(text) + end)


def show_exactly(text: str) -> None:
    """A result for programs, to stdout, as UTF-8 whatever the terminal is."""
    sys.stdout.flush()
    with _while_read():
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()


def can_show(text: str) -> bool:
    """Whether stdout takes the text as it is."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeError:
        return False
    return _ACTS.search(text) is None


def complain(text: str) -> None:
    """To stderr; where nobody reads it any more, to nobody."""
    with suppress(BrokenPipeError):
        print(visible(text), file=sys.stderr, flush=True)


def ready_streams() -> None:
    """A character that a stream cannot write is written as another, or as its escape, and ends nothing."""
    codecs.register_error("lorakit", _otherwise)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="lorakit")


def finish_streams(code: int) -> int:
    """Write what is left; the exit code, which is another where the reader has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        to_nobody(sys.stdout)
        return CLOSED
    return code


def to_nobody(stream: IO[str]) -> None:
    """Python flushes a stream once more as it ends, and would complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _out(text: str) -> None:
    with _while_read():
        print(text, end="")


@contextmanager
def _while_read() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        to_nobody(sys.stdout)
        raise SystemExit(CLOSED) from None


def _otherwise(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    unwritten = error.object[error.start : error.end]
    written = "".join(
        _PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode() for char in unwritten
    )
    return written, error.end
