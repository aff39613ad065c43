"""Lines and contents of files, packed (.gz, .bz2) or not, with an end to how large they become: a line of a gigabyte
packs into a megabyte."""

from __future__ import annotations

import bz2
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorakit.errors import DataError

PACKED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
LINE, WHOLE = 64, 1024
"""MiB that a line may have, and that a packed file may unpack to."""


def most_of(name: str, mib: int) -> int:
    """The limit in bytes; the environment variable of that name gives another one, in MiB. DataError: not a number."""
    given = os.environ.get(name) or str(mib)
    if not given.isdecimal() or int(given) == 0:
        raise DataError(f"{name} is {given!r}; give a number of MiB, such as {mib}")
    return int(given) * 2**20


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line, its end included. DataError: one that is too long, a file that unpacks to too
    much or is damaged. OSError: it cannot be opened."""
    most, whole, total = (
        most_of("LORAKIT_LINE_MIB", LINE),
        most_of("LORAKIT_UNPACKED_MIB", WHOLE),
        0,
    )
    packed = path.suffix in PACKED
    try:
        with PACKED.get(path.suffix, open)(path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(most + 1), b""), 1):
                if len(line) > most:
                    raise DataError(
                        f"{path}:{number}: {_too_much('a line', most, 'LORAKIT_LINE_MIB')}"
                    )
                total += len(line)
                if packed and total > whole:
                    raise DataError(
                        f"{path}:{number}: {_too_much('the file', whole, 'LORAKIT_UNPACKED_MIB')}"
                    )
                yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"cannot read {path}: not a gzip file that can be read: {error}") from None


def contents(path: Path) -> bytes:
    """All that a file holds, unpacked. DataError: too much, or damaged. OSError: it cannot be opened."""
    if path.suffix not in PACKED:
        return path.read_bytes()
    whole = most_of("LORAKIT_UNPACKED_MIB", WHOLE)
    with PACKED[path.suffix](path, "rb") as file:
        found = file.read(whole + 1)
    if len(found) > whole:
        raise DataError(f"{path}: {_too_much('the file', whole, 'LORAKIT_UNPACKED_MIB')}")
    return found


def _too_much(what: str, most: int, name: str) -> str:
    return f"{what} has more than {most // 2**20} MiB (unpacked); if that is meant, set {name} to a higher number"
