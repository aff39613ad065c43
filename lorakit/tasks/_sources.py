"""Where a published data set's rows lie: a folder in one of its known layouts, JSON and XML in it, or the hub's tables.

What is not of the expected shape is a DataError that says where.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from pydantic import TypeAdapter, ValidationError

from lorakit.errors import DataError, DataUnavailable
from lorakit.tasks._files import listing, locate
from lorakit.tasks._packed import contents

T = TypeVar("T")

PARQUET = "refs/convert/parquet"
"""The hub's own copy as tables of a data set that is published as a script, which `datasets` 4 does not run."""


def official_file(
    path: str, split: str, homes: Sequence[str], layouts: Sequence[Mapping[str, str]], get_it: str
) -> Path:
    """The file or folder of a split; a .json may be a .json.gz.

    homes: sub-folders of `path` to look in, the first one that holds something of a layout counts. layouts: split ->
    name, the first one of which something is there counts for every split, so that splits are of one kind. DataError:
    what is missing, and `get_it`.
    """
    folder = locate(path)
    if not folder.is_dir():
        raise DataError(
            f"data.path: no folder {folder}; give the one that holds {_wanted(layouts)}. {get_it}"
        )
    for home in homes:
        for layout in layouts:
            if any(_present(folder / home / name) for name in layout.values()):
                found = _present(folder / home / layout[split])
                if found is None:
                    raise DataError(
                        f"{folder / home}: no {layout[split]} for the {split} split. {get_it}"
                    )
                return found
    raise DataError(
        f"{folder}: holds none of {_wanted(layouts)} (it holds: {listing(folder)}). {get_it}"
    )


def _present(path: Path) -> Path | None:
    packed = path.with_name(path.name + ".gz")
    return path if path.exists() else packed if path.suffix == ".json" and packed.exists() else None


def _wanted(layouts: Sequence[Mapping[str, str]]) -> str:
    return " or ".join(", ".join(layout.values()) for layout in layouts)


def read_json(path: Path) -> Any:
    """What a .json or .json.gz holds. DataError: it is neither."""
    try:
        return json.loads(contents(path).decode("utf-8-sig"))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a gzip file that can be read: {error}") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.object[error.start]:#04x} at {error.start} is not UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nested as deep
        raise DataError(f"{path}: JSON that is not read: {error}") from None


_adapter = lru_cache(maxsize=None)(TypeAdapter)


def shaped(kind: type[T], value: Any, where: str) -> T:
    """`value` as a `kind`, a pydantic model or a list of them. DataError: the first place where it is another thing."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
        ).lstrip(".")
        found = repr(first["input"])
        shown = found if len(found) <= 80 else f"{found[:80]}..."
        raise DataError(
            f"{where}: {place}{': ' * bool(place)}{first['msg']}, found {shown}"
        ) from None


def read_xml(path: Path) -> tuple[Element, dict[Element, int]]:
    """The root, and the line that each element starts on. DataError: not XML, or a DOCTYPE, which may define entities.

    Without one nothing outside the file is read, and no text can grow by expansion.
    """
    builder, lines = TreeBuilder(), {}
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(tag: str, attributes: dict[str, str]) -> None:
        lines[builder.start(tag, attributes)] = parser.CurrentLineNumber

    def refuse(*_: Any) -> None:
        raise DataError(
            f"{path}:{parser.CurrentLineNumber}: a DOCTYPE, which is not read; remove it"
        )

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise DataError(
            f"{path}:{error.lineno}: not XML: {expat.ErrorString(error.code)}"
        ) from None
    except DataError:
        raise
    except (LookupError, ValueError) as error:  # the encoding that the first line names
        raise DataError(f"{path}: not XML that is read: {error}; save it as UTF-8") from None
    return builder.close(), lines


def hub_table(name: str, files: str | None, split: str, revision: str | None, instead: str) -> Any:
    """The rows of a split of a hub data set. DataError: they cannot be loaded, and what to do `instead`.

    files: Parquet files of the hub's converted copy, unless there is another `revision`; they are named, as that copy
    calls its configurations and splits by names of its own. None: the data set is published as tables, with splits.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        if files is None:
            return load_dataset(name, split=split, revision=revision)
        return load_dataset(
            name, data_files={split: files}, split=split, revision=revision or PARQUET
        )
    except (
        OSError,
        ValueError,
        RuntimeError,
        DatasetsError,
    ) as error:  # no network, no cache, no such revision
        raise DataUnavailable(
            f"{name}, {files or split}, is not available: {error}. {instead}, or run once with network"
        ) from error
