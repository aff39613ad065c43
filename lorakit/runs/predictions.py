"""Files of predictions: what each line says, and which example it is about."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit.errors import DataError, did_you_mean
from lorakit.files.packed import PACKED, raw_lines
from lorakit.files.tables import CSV_FIELD_LIMIT


@dataclass(frozen=True)
class Said:
    """A prediction. where: `file:line`; id: of its example, None where the file does not say it."""

    where: str
    id: str | None
    value: Any


def read_predictions(path: Path) -> list[Said]:
    """Of a .jsonl, of the last column of a .tsv with a header (its column `id`, if there is one, says the examples), or
    of each line of a text.

    It may be packed, as .gz or .bz2.
    """
    kind = Path(path.stem if path.suffix in PACKED else path.name).suffix.lower()
    if kind == ".jsonl":
        return [Said(where, id_of(line), _said(line, where)) for where, line in json_lines(path)]
    if kind == ".tsv":
        return _table(path)
    lines = text_lines(path)
    return [Said(f"{path}:{number}", None, line) for number, line in enumerate(lines, 1)]


def _table(path: Path) -> list[Said]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    reader = csv.reader(
        io.StringIO("\n".join(text_lines(path)).rstrip("\n"), newline=""), delimiter="\t"
    )
    try:
        table = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}: not a table: {error}") from None
    if len(table) < 2 or any(len(row) != len(table[0][1]) for _, row in table[1:]):
        raise DataError(
            f"{path}: a header and rows of as many columns are expected, the last one the prediction"
        )
    header = table[0][1]
    place = header.index("id") if "id" in header[:-1] else None
    return [
        Said(f"{path}:{n}", None if place is None else row[place], row[-1]) for n, row in table[1:]
    ]


def text_lines(path: Path) -> list[str]:
    """Lines without their ends. DataError: it cannot be read, or is not UTF-8."""
    try:
        lines = [
            line.decode("utf-8-sig" if n == 1 else "utf-8").removesuffix("\n")
            for n, line in raw_lines(path)
        ]
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    return [line.removesuffix("\r") for line in lines] or [""]


def json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(file:line, object) of each line of a JSONL file. DataError: a line that is none."""
    found = []
    for number, text in enumerate(text_lines(path), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: this is not JSON: {error}") from None
        if not isinstance(line, dict):
            raise DataError(
                f"{path}:{number}: a JSON object per line is expected, this is {text[:60]!r}"
            )
        found.append((f"{path}:{number}", line))
    return found


def id_of(line: dict[str, Any]) -> str | None:
    """Ids are texts; a number is taken as it is written."""
    return None if line.get("id") is None else str(line["id"])


def _said(line: dict[str, Any], where: str) -> Any:
    # WikiSQL's official lines have a query, or an error instead; its task takes such a line, and the others refuse it
    official = "prediction" not in line and ("query" in line or "error" in line)
    return line if official else field_of(line, ("prediction",), where)


def checked_answer(line: dict[str, Any], where: str) -> dict[str, Any]:
    """A line of a run's predictions. DataError: it is another kind of line, or has no reference."""
    if missing := [key for key in ("id", "prediction") if key not in line]:
        raise DataError(f"{where}: no {missing[0]!r}; this is not a line of a run's predictions")
    if reference_of(line) is None:
        raise DataError(f"{where}: no reference, so this answer cannot be scored or compared")
    return line


def reference_of(line: dict[str, Any]) -> Any:
    """The reference of a line of predictions, or its list of references; None: it has neither."""
    return line.get("references", line.get("reference"))


def field_of(line: dict[str, Any], names: tuple[str, ...], where: str) -> Any:
    """The first of these that a line has. DataError: none."""
    for name in names:
        if line.get(name) is not None:
            return line[name]
    held = ", ".join(f"{key} (null)" if value is None else key for key, value in line.items())
    raise DataError(
        f"{where}: no {' or '.join(map(repr, names))} here (it has: {held or 'nothing'})"
    )


def by_id(
    said: Sequence[Said], ids: Sequence[str], path: Path, source: str
) -> dict[str, Said] | None:
    """Each example's prediction; None where the file says no ids. `source`: where the examples come from.

    DataError, with file and line: an id that is unknown, is given twice, or is missing.
    """
    if all(one.id is None for one in said):
        return None
    known, found = frozenset(ids), {}
    for one in said:
        if one.id is None:
            raise DataError(
                f"{one.where}: no 'id' here, and other lines have one; give each line one, or none"
            )
        if one.id not in known:
            near = did_you_mean(one.id, ids[:10_000])
            raise DataError(
                f"{one.where}: id {one.id!r} is not in {source}{near} (ids there: {ids[0]!r}, ...); without ids, lines "
                "are taken in the order of the examples"
            )
        if one.id in found:
            raise DataError(
                f"{one.where}: id {one.id!r} has a prediction at {found[one.id].where} already"
            )
        found[one.id] = one
    if absent := [id for id in ids if id not in found]:
        raise DataError(
            f"{path}: {len(absent)} of {len(ids)} examples have no prediction, such as id {absent[0]!r}"
        )
    return found
