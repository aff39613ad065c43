"""Bytes of files that may be compressed (.gz, .bz2), with a limit on their uncompressed size.

The limit is there because one gigabyte of equal bytes compresses to a megabyte.
"""

from __future__ import annotations

import bz2
import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorakit.errors import DataError

PACKED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
"""Suffix -> how such a file is opened."""
LINE_LIMIT_MIB = 64
UNPACKED_LIMIT_MIB = 1024
LINE_VARIABLE = "LORAKIT_LINE_MIB"
UNPACKED_VARIABLE = "LORAKIT_UNPACKED_MIB"


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""The number and the bytes of each line, `\n` included.

    DataError: a line that is too long, or a file that unpacks to too much, is damaged, or cannot
    be opened.
    """
    line_limit = _limit_bytes(LINE_VARIABLE, LINE_LIMIT_MIB)
    file_limit = _limit_bytes(UNPACKED_VARIABLE, UNPACKED_LIMIT_MIB)
    is_packed = path.suffix in PACKED
    total = 0
    with _damage_as_data_error(path), PACKED.get(path.suffix, open)(path, "rb") as file:
        # one byte more than allowed, so that a line of exactly the limit is told from a longer one
        for number, line in enumerate(iter(lambda: file.readline(line_limit + 1), b""), 1):
            total += len(line)
            if len(line) > line_limit:
                problem = _too_large("a line", line_limit, LINE_VARIABLE)
                raise DataError(f"{path}:{number}: {problem}")
            if is_packed and total > file_limit:
                problem = _too_large("the file", file_limit, UNPACKED_VARIABLE)
                raise DataError(f"{path}:{number}: {problem}")
            yield number, line


def contents(path: Path) -> bytes:
    """The entire file, unpacked. DataError: too much, damaged, or it cannot be opened."""
    limit = _limit_bytes(UNPACKED_VARIABLE, UNPACKED_LIMIT_MIB)
    with _damage_as_data_error(path), PACKED.get(path.suffix, open)(path, "rb") as file:
        if path.suffix not in PACKED:
            return file.read()
        found = file.read(limit + 1)
    if len(found) > limit:
        raise DataError(f"{path}: {_too_large('the file', limit, UNPACKED_VARIABLE)}")
    return found


@contextmanager
def _damage_as_data_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"cannot read {path}: not a gzip file that can be read: {error}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _limit_bytes(variable: str, default_mib: int) -> int:
    """The limit that an environment variable gives in MiB. DataError: it is not a number."""
    given = os.environ.get(variable) or str(default_mib)
    if not given.isdecimal() or int(given) == 0:
        raise DataError(f"{variable} is {given!r}; give a number of MiB, such as {default_mib}")
    return int(given) * 2**20


def _too_large(what: str, limit: int, variable: str) -> str:
    return (
        f"{what} has more than {limit // 2**20} MiB (unpacked); "
        f"if that is intended, set {variable} to a higher number"
    )
