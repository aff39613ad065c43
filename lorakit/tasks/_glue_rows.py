"""GLUE's rows, from the hub or from the official TSV files, for the tasks that make examples of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lorakit.errors import DataError, DataUnavailable
from lorakit.tasks._base import Data
from lorakit.tasks._files import limit_of, locate, rows
from lorakit.tasks._glue import VARIANTS, Variant

log = logging.getLogger(__name__)

HUB = "nyu-mll/glue"


class Source(NamedTuple):
    """A row, wherever it comes from."""

    where: str
    index: int
    """From 0; a malformed row that is skipped counts, as on the hub."""
    texts: list[str]
    label: Any
    """Name or number; of a test row whatever stands for a hidden one."""


def glue_rows(name: str, split: str, data: Data) -> Iterator[Source]:
    """The rows of a split of `mnli`, say, as far as `data.limit` keeps them. DataError, with file and line."""
    variant = VARIANTS[name]
    limit = limit_of(data.limit, split, list(variant.rows))
    return (
        _hub(name, split, data, limit)
        if data.path is None
        else _official(variant, split, data.path, limit)
    )


def _official(variant: Variant, split: str, folder: str, limit: int | None) -> Iterator[Source]:
    """Rows of `CoLA/dev.tsv` and its kin."""
    test = split.startswith("test")
    path = _official_file(variant, split, locate(folder))
    header = () if test else variant.tsv_header
    columns = variant.tsv_texts if test else (*variant.tsv_texts, variant.tsv_label)
    first, total = 1 if header else 2, 0
    for total, (line, row) in enumerate(rows(path, columns, header=header), 1):
        if limit is None or total <= limit:
            where = f"{path}:{line}"
            label = None if test else _official_label(variant, row[variant.tsv_label], where)
            yield Source(where, line - first, [row[column] for column in variant.tsv_texts], label)
    _compare(variant, str(path), split, total)


def _official_file(variant: Variant, split: str, folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"data.path: no folder {folder}; give the one that holds {variant.folder}/")
    inner = folder / variant.folder
    return (inner if inner.is_dir() else folder) / f"{split.replace('validation', 'dev')}.tsv"


def _official_label(variant: Variant, label: str, where: str) -> str | int:
    if not variant.numbered:
        return label
    if label not in ("0", "1"):
        raise DataError(f"{where}: label {label!r} is not 0 or 1")
    return int(label)


def _hub(name: str, split: str, data: Data, limit: int | None) -> Iterator[Source]:
    from datasets import load_dataset

    variant = VARIANTS[name]
    try:
        table: Any = load_dataset(HUB, name, split=split, revision=data.revision)
    except (OSError, ValueError) as error:  # no network, no cache, no such revision
        raise DataUnavailable(
            f"{HUB} {name}, split {split}, is not available: {error}. Give data.path=FOLDER with GLUE's "
            f"official TSV files ({variant.folder}/train.tsv ...), or run once with network"
        ) from error
    _compare(variant, f"{HUB} {name}", split, len(table))
    for row in table if limit is None else table.select(range(min(limit, len(table)))):
        where = f"{HUB} {name}, split {split}, idx {row['idx']}"
        yield Source(where, row["idx"], [row[column] for column in variant.texts], row["label"])


def _compare(variant: Variant, where: str, split: str, found: int) -> None:
    official = variant.rows[split]
    if found != official:
        log.warning("%s: %d rows; the official %s split has %d", where, found, split, official)
