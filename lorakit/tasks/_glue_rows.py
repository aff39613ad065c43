"""GLUE's rows, from the hub or from the official TSV files, for the tasks that use them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from lorakit.errors import DataError
from lorakit.files.tables import rows
from lorakit.tasks._base import Data
from lorakit.tasks._glue import VARIANTS, Variant
from lorakit.tasks._published import PublishedData, data_folder, warn_of_row_count

HUB = "nyu-mll/glue"


class GlueRow(NamedTuple):
    """A row of a GLUE data set, from the hub or from a file."""

    where: str
    """For messages."""
    index: int
    """From 0. A malformed row that is skipped counts too, as on the hub."""
    texts: list[str]
    label: str | float | None
    """Name or number. In a test split, the placeholder of a hidden label."""


def glue_rows(name: str, split: str, data: Data) -> Iterator[GlueRow]:
    """The rows of a split of a variant such as `mnli`, up to `data.limit`.

    DataError: a wrong row, with file and line.
    """
    variant = VARIANTS[name]
    limit = data.limit_of(split, list(variant.rows))
    if data.path is None:
        return _hub_rows(name, split, data.revision, limit)
    return _official_rows(variant, split, data.path, limit)


def _official_rows(
    variant: Variant, split: str, folder: str, limit: int | None
) -> Iterator[GlueRow]:
    """The rows of a file such as `CoLA/dev.tsv`."""
    is_test = split.startswith("test")
    home = data_folder(folder, f"{variant.folder}/")
    inner = home / variant.folder
    path = (inner if inner.is_dir() else home) / f"{split.replace('validation', 'dev')}.tsv"
    header = () if is_test else variant.tsv_header
    label_columns = () if is_test else (variant.tsv_label,)
    first_line = 1 if header else 2
    total = 0
    # rows beyond the limit are read too: they may be malformed, and their number is compared
    for line, row in rows(path, (*variant.tsv_texts, *label_columns), header=header):
        total += 1
        if limit is not None and total > limit:
            continue
        where = f"{path}:{line}"
        texts = [row[column] for column in variant.tsv_texts]
        label = None if is_test else _official_label(variant, row[variant.tsv_label], where)
        yield GlueRow(where, line - first_line, texts, label)
    warn_of_row_count(str(path), split, total, variant.rows[split])


def _official_label(variant: Variant, label: str, where: str) -> str | int:
    if not variant.numbered:
        return label
    if label not in ("0", "1"):
        raise DataError(f"{where}: label {label!r} is not 0 or 1")
    return int(label)


def _hub_rows(name: str, split: str, revision: str | None, limit: int | None) -> Iterator[GlueRow]:
    variant = VARIANTS[name]
    get_it = f"GLUE's official TSV files: {variant.folder}/train.tsv ..."
    published = PublishedData(HUB, get_it, config=name)
    table = published.hub_table(split, revision)
    warn_of_row_count(published.hub_name(split), split, len(table), variant.rows[split])
    for row in islice(table, limit):
        where = f"{published.hub_name(split)}, idx {row['idx']}"
        texts = [row[column] for column in variant.texts]
        yield GlueRow(where, row["idx"], texts, row["label"])
