"""JSON Lines files of a run: one object per line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lorakit.runs.folder import make_folder
from lorakit.runs.result import write_whole


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write the complete file, or leave it as it was. InputError: no permission, disk full."""
    make_folder(path.parent)
    write_whole(path, (json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects up to the first damaged line: a stop can cut the last one; [] without a file."""
    found: list[dict[str, Any]] = []
    if not path.is_file():
        return found
    # bytes, because splitlines of a text would also split at U+2028 inside a JSON string
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict):
            break
        found.append(row)
    return found
