r"""Words for a shell: whatever a word holds, bash reads it back as that one word and runs nothing of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

_ESCAPED = {"\\": "\\\\", "'": "\\'"}


class Code(str):
    """A word that is shell code already and is meant to be: a variable of ours. Nothing foreign becomes one."""

    __slots__ = ()


def quote(word: str) -> str:
    r"""The word as bash reads it back. What cannot be seen (newlines, escape bytes, bytes that are no UTF-8) is written
    as $'\x0a', so that a line stays one line."""
    if isinstance(word, Code):
        return str(word)
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_in_ansi, word)) + "'"


def join(words: Iterable[str]) -> str:
    """A command line of these words."""
    return " ".join(map(quote, words))


def label(text: str) -> str:
    """A name for a job: letters, digits and a few signs, which no shell and no scheduler takes for anything else."""
    return re.sub(r"[^A-Za-z0-9._+=@-]", "-", text) or "lorakit"


def _in_ansi(char: str) -> str:
    if char.isprintable():
        return _ESCAPED.get(char, char)
    number = ord(char)
    # a byte that is no UTF-8 is read as one of these
    is_byte = 0xDC80 <= number <= 0xDCFF
    raw = bytes([number - 0xDC00]) if is_byte else char.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in raw)
