"""Tables in files: .tsv, .csv, .jsonl and .parquet as (line number, {column: value}).

A .tsv has no quoting, as in GLUE's files: a field may contain a single quote character. A .csv has
quoting, and a record may span several lines.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit.errors import DataError, did_you_mean, first_of
from lorakit.files.documents import parse_json
from lorakit.files.packed import raw_lines

log = logging.getLogger(__name__)

NumberedRow = tuple[int, dict[str, Any]]
NumberedRecord = tuple[int, list[str]]

ASSET_PREFIX = "lorakit:"
MALFORMED_SHARE = 0.01
"""Up to this share, rows with a wrong number of fields are skipped: GLUE's QQP has a few."""
CSV_FIELD_LIMIT = 2**31 - 1
"""Characters in a field. The csv module's default is 131,072, which a legal document exceeds."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns to read. header: all of the file's columns, where its first line is a row."""

    required: Sequence[str]
    optional: Sequence[str] = ()
    header: Sequence[str] = ()

    def present(self, names: Sequence[str], where: str) -> list[str]:
        """The columns to read among `names`. DataError: a required one is missing."""
        for name in self.required:
            if name not in names:
                near = did_you_mean(name, names)
                raise DataError(f"{where}: no column {name!r}{near} (columns: {', '.join(names)})")
        return [name for name in (*self.required, *self.optional) if name in names]


def locate(value: str) -> Path:
    """The path for a value of a recipe.

    `lorakit:tiny/train.csv` is in the package's assets, and `~` is the home folder.
    """
    if value.startswith(ASSET_PREFIX):
        return Path(__file__).parents[1] / "assets" / value.removeprefix(ASSET_PREFIX)
    return Path(value).expanduser()


def rows(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), header: Sequence[str] = ()
) -> Iterator[NumberedRow]:
    """The given columns of every row, with the number of the line on which the row starts.

    For .parquet the number is that of the row. Values of .tsv and .csv are text.

    optional: columns that are read if the file has them. header: the file's columns, if its first
    line does not name them. DataError, with file and line: a file that is absent, empty or not
    UTF-8, an unknown extension, a missing column, invalid JSON, or more than 1 % of rows with a
    wrong number of fields (fewer are skipped, with one warning).
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        found = path.suffix or "no extension"
        raise DataError(f"{path}: {found} is not read; give one of {', '.join(_READERS)}")
    _check_exists(path)
    is_empty = True
    for row in read(path, Columns(columns, optional, header)):
        is_empty = False
        yield row
    if is_empty:
        raise DataError(f"{path}: no rows")


def take(rows: Iterable[NumberedRow], limit: int | None) -> Iterator[NumberedRow]:
    """The first `limit` rows, or all of them.

    The other rows are read too, so that a trial run finds every error in the file.
    """
    for count, row in enumerate(rows):
        if limit is None or count < limit:
            yield row


def listing(folder: Path, most: int = 12) -> str:
    """The first names in a folder, for an error message."""
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    return first_of(names, most) or "nothing"


def lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""The number and the text of each line, its end included. DataError: it is not UTF-8.

    Only `\n` ends a line: texts contain U+2028 and `\r` by itself.
    """
    for number, line in raw_lines(path):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{number}: byte {error.object[error.start]:#04x} at position {error.start} "
                "is not UTF-8; save the file as UTF-8"
            ) from None


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """As `lines`, without the ends of the lines."""
    for number, line in lines(path):
        yield number, line.removesuffix("\n").removesuffix("\r")


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The number and the value of each line that is not blank. DataError: it is not JSON."""
    for number, line in lines(path):
        if line.strip():
            yield number, parse_json(line.rstrip(), path, number, hint="; give one value per line")


def _check_exists(path: Path) -> None:
    if path.is_file():
        return
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a file in it ({listing(path)})")
    folder = path.parent
    if not folder.is_dir():
        raise DataError(
            f"{path}: no such file, and no folder {folder} (the current folder is {Path.cwd()})"
        )
    near = did_you_mean(path.name, [p.name for p in folder.iterdir()])
    raise DataError(f"{path}: no such file{near} ({folder} holds: {listing(folder)})")


def _tsv(path: Path, columns: Columns) -> Iterator[NumberedRow]:
    records = ((number, line.split("\t")) for number, line in text_lines(path) if line)
    return _table(path, records, columns)


def _csv(path: Path, columns: Columns) -> Iterator[NumberedRow]:
    return _table(path, csv_records(path), columns)


def csv_records(path: Path, delimiter: str = ",", strict: bool = True) -> Iterator[NumberedRecord]:
    """The fields of each record that is not blank, and the number of the line it starts on.

    strict: refuse a quote that is left open, which otherwise swallows the rest of the file.
    """
    csv.field_size_limit(CSV_FIELD_LIMIT)  # for the process: the module has no other way
    reader = csv.reader((line for _, line in lines(path)), delimiter=delimiter, strict=strict)
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
    path: Path, records: Iterator[NumberedRecord], columns: Columns
) -> Iterator[NumberedRow]:
    names = list(columns.header) or next(records, (1, []))[1]
    if not names:
        return
    where = f"{path}:1"
    places = {name: names.index(name) for name in columns.present(names, where)}
    for name in places:
        if names.count(name) > 1:
            raise DataError(
                f"{where}: {names.count(name)} columns are named {name!r}; rename all but one"
            )
    total = 0
    malformed: list[tuple[int, int]] = []
    for number, fields in records:
        total += 1
        if len(fields) == len(names):
            yield number, {name: fields[place] for name, place in places.items()}
        else:
            malformed.append((number, len(fields)))
    if malformed:
        _judge_malformed(path, malformed, total, len(names))


def _judge_malformed(path: Path, malformed: list[tuple[int, int]], total: int, width: int) -> None:
    number, fields = malformed[0]
    found = (
        f"{path}:{number}: {fields} fields instead of {width}; "
        f"{len(malformed)} of {total} rows have a wrong number of fields"
    )
    if len(malformed) > MALFORMED_SHARE * total:
        raise DataError(f"{found}, more than {MALFORMED_SHARE:.0%}; is it the right separator?")
    log.warning("%s and were skipped", found)


def _jsonl(path: Path, columns: Columns) -> Iterator[NumberedRow]:
    for number, row in json_lines(path):
        where = f"{path}:{number}"
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise DataError(f"{where}: a JSON {kind}, not an object; give {{column: value}}")
        yield number, {name: row[name] for name in columns.present(list(row), where)}


def _parquet(path: Path, columns: Columns) -> Iterator[NumberedRow]:
    import pyarrow as pa  # comes with datasets
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = columns.present(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(columns=names):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # OSError: damage within a page
        raise DataError(f"{path}: not a Parquet file that can be read: {error}") from None


_READERS = {".tsv": _tsv, ".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
