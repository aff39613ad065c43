"""Rows of a file: .tsv, .csv, .jsonl or .parquet to (line number, {column: value}).

A .tsv has no quoting, as GLUE's have none: a field may hold a lone quote. A .csv has it, and a record may span lines.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lorakit.errors import DataError, RecipeError, did_you_mean
from lorakit.tasks._packed import raw_lines

log = logging.getLogger(__name__)

Row = tuple[int, dict[str, Any]]

_ASSETS = "lorakit:"
_MALFORMED = 0.01
"""Share of rows with a wrong number of fields up to which they are skipped: GLUE's QQP has a few."""
FIELD = 2**31 - 1
"""Characters of a field of a .csv. The csv module's own limit is 131,072, which a legal document passes."""


def locate(value: str) -> Path:
    """The path that a value names: `lorakit:tiny/train.csv` lies in the package's assets, `~` is the home folder."""
    if value.startswith(_ASSETS):
        return Path(__file__).parents[1] / "assets" / value.removeprefix(_ASSETS)
    return Path(value).expanduser()


def rows(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), header: Sequence[str] = ()
) -> Iterator[Row]:
    """The given columns of every row, with the number of the line that the row starts on (.parquet: of the row).

    optional: columns that are read where the file has them. header: the columns, where the first line does not name
    them. Values of .tsv and .csv are text. DataError, with file and line: a file that is absent, empty or not UTF-8, an
    extension that is unknown, a column that is missing, JSON that does not parse, more than 1 % of rows with a wrong
    number of fields (fewer are skipped, with one warning).
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(
            f"{path}: {path.suffix or 'no extension'} is not read; give one of {', '.join(_READERS)}"
        )
    _must_exist(path)
    empty = True
    for row in read(path, columns, optional, header):
        empty = False
        yield row
    if empty:
        raise DataError(f"{path}: no rows")


def take(rows: Iterable[Row], limit: int | None) -> Iterator[Row]:
    """The first `limit` rows, or all. The rest is read too, so that a trial meets what is wrong with the file."""
    for count, row in enumerate(rows):
        if limit is None or count < limit:
            yield row


def limit_of(limits: dict[str, int], split: str, splits: Sequence[str]) -> int | None:
    """How many rows of the split to keep; None: all. DataError: no such split. RecipeError: a limit that is wrong."""
    if split not in splits:
        raise DataError(
            f"no split {split!r}{did_you_mean(split, splits)} (splits: {', '.join(splits)})"
        )
    for name, limit in limits.items():
        if name not in splits:
            raise RecipeError(
                f"data.limit.{name}: no such split{did_you_mean(name, splits)} ({', '.join(splits)})"
            )
        if limit < 1:
            raise RecipeError(
                f"data.limit.{name}: {limit} rows; give 1 or more, or leave it out for all rows"
            )
    return limits.get(split)


def _must_exist(path: Path) -> None:
    if path.is_file():
        return
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a file in it ({listing(path)})")
    folder = path.parent
    if not folder.is_dir():
        raise DataError(f"{path}: no such file, and no folder {folder} (looked from {Path.cwd()})")
    near = did_you_mean(path.name, [p.name for p in folder.iterdir()])
    raise DataError(f"{path}: no such file{near} ({folder} holds: {listing(folder)})")


def listing(folder: Path, most: int = 12) -> str:
    """The names in a folder, a few of many, for a message."""
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    return (
        ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
        or "nothing"
    )


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and line, its end included. Only "\\n" ends a line: texts hold U+2028 and lone "\\r"."""
    for number, line in raw_lines(path):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{number}: byte {error.object[error.start]:#04x} at position {error.start} is not UTF-8; "
                "save the file as UTF-8"
            ) from None


def _tsv(
    path: Path, columns: Sequence[str], optional: Sequence[str], header: Sequence[str]
) -> Iterator[Row]:
    stripped = (
        (number, line.removesuffix("\n").removesuffix("\r")) for number, line in lines(path)
    )
    records = ((number, line.split("\t")) for number, line in stripped if line)
    return _table(path, records, columns, optional, header)


def _csv(
    path: Path, columns: Sequence[str], optional: Sequence[str], header: Sequence[str]
) -> Iterator[Row]:
    return _table(path, _csv_records(path), columns, optional, header)


def _csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(FIELD)
    reader = csv.reader((line for _, line in lines(path)), strict=True)
    start = 1
    try:
        for record in reader:
            if record:
                yield start, record
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{start}: not CSV: {error}; is a quote left open, or not doubled?"
        ) from None


def _table(
    path: Path,
    records: Iterator[tuple[int, list[str]]],
    columns: Sequence[str],
    optional: Sequence[str],
    header: Sequence[str],
) -> Iterator[Row]:
    names = list(header) or next(records, (1, []))[1]
    if not names:
        return
    where = f"{path}:1"
    _must_have(where, names, columns)
    places = {name: names.index(name) for name in (*columns, *optional) if name in names}
    for name in places:
        if names.count(name) > 1:
            raise DataError(
                f"{where}: {names.count(name)} columns are named {name!r}; rename all but one"
            )
    total, malformed = 0, []
    for number, fields in records:
        total += 1
        if len(fields) == len(names):
            yield number, {name: fields[place] for name, place in places.items()}
        else:
            malformed.append((number, len(fields)))
    _judge(path, malformed, total, len(names))


def _judge(path: Path, malformed: list[tuple[int, int]], total: int, width: int) -> None:
    if not malformed:
        return
    number, fields = malformed[0]
    found = (
        f"{path}:{number}: {fields} fields instead of {width}; {len(malformed)} of {total} rows have a wrong number "
        "of fields"
    )
    if len(malformed) > _MALFORMED * total:
        raise DataError(f"{found}, which is more than {_MALFORMED:.0%}; is it the right separator?")
    log.warning("%s and were skipped", found)


def _jsonl(
    path: Path, columns: Sequence[str], optional: Sequence[str], header: Sequence[str]
) -> Iterator[Row]:
    for number, line in lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}: not JSON: {error.msg} at column {error.colno}; one object per line"
            ) from None
        except (
            ValueError,
            RecursionError,
        ) as error:  # a number of thousands of digits; nested as deep
            raise DataError(f"{where}: JSON that is not read: {error}") from None
        if not isinstance(row, dict):
            raise DataError(
                f"{where}: a JSON {type(row).__name__}, not an object; give {{column: value}} per line"
            )
        _must_have(where, list(row), columns)
        yield number, {name: row[name] for name in (*columns, *optional) if name in row}


def _parquet(
    path: Path, columns: Sequence[str], optional: Sequence[str], header: Sequence[str]
) -> Iterator[Row]:
    import pyarrow as pa  # comes with datasets
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _must_have(str(path), names, columns)
            number = 0
            for batch in file.iter_batches(
                columns=[name for name in (*columns, *optional) if name in names]
            ):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # OSError: damaged within a page
        raise DataError(f"{path}: not a Parquet file that can be read: {error}") from None


def _must_have(where: str, names: Sequence[str], columns: Sequence[str]) -> None:
    for name in columns:
        if name not in names:
            raise DataError(
                f"{where}: no column {name!r}{did_you_mean(name, names)} (columns: {', '.join(names)})"
            )


_READERS = {".tsv": _tsv, ".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
