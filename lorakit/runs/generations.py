"""Answers on disk as they come, so that a stop loses none: `SPLIT.partial.jsonl`, a line per answer, in any order.

The first line says what was asked of what; where the same is asked again, what is there already is taken from the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lorakit.errors import InputError
from lorakit.runs.lines import read_lines


class Kept:
    """The partial file of one split. `known`: what an earlier attempt left, example id -> line.

    batch: only batches of this size that are whole count, so that what is left meets in the batches that it would have
    met in: another batch has other padding, and other last bits.
    """

    def __init__(self, final: Path, asked: str, batch: int = 1):
        self.path = self.partial(final)
        head, *lines = read_lines(self.path) or [{}]
        same = head.get("asked") == asked
        lines = lines[: len(lines) // batch * batch]
        self.known: dict[str, dict[str, Any]] = {line["id"]: line for line in lines} if same else {}
        # written anew: the last line of what was stopped may be cut off
        self._write("w", [{"asked": asked}, *self.known.values()])

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self._write("a", lines)

    @staticmethod
    def partial(final: Path) -> Path:
        return final.with_name(f"{final.stem}.partial.jsonl")

    def _write(self, mode: str, lines: Iterable[Mapping[str, Any]]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode, encoding="utf-8") as file:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}") from error


def asked_of(settings: Mapping[str, Any], folder: Path) -> str:
    """A digest of the settings, and of the files of a model or adapter by name, size and time of change."""
    files = [
        (f.name, f.stat().st_size, f.stat().st_mtime_ns)
        for f in sorted(folder.glob("*"))
        if f.is_file()
    ]
    return hashlib.blake2b(
        json.dumps([settings, files], sort_keys=True).encode(), digest_size=16
    ).hexdigest()
