"""DART v1.1.1 (Nan et al. 2021, arXiv 2007.02871): triples of an open domain to text, from tables, WebNLG and E2E."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field

from lorakit.errors import DataError
from lorakit.tasks._generation import Generation, Row, Size, triples_text
from lorakit.tasks._sources import hub_table, official_file, read_json, shaped

log = logging.getLogger(__name__)

HUB = "Yale-LILY/dart"
FILES = {
    "train": "dart-v1.1.1-full-train.json",
    "validation": "dart-v1.1.1-full-dev.json",
    "test": "dart-v1.1.1-full-test.json",
}
GET_IT = "The files: https://github.com/Yale-LILY/dart, data/v1.1.1"

Triples = Annotated[list[tuple[str, str, str]], Field(min_length=1)]


class _Annotation(BaseModel):
    text: str


class _Entry(BaseModel):
    """Of the official JSON."""

    tripleset: Triples
    annotations: list[_Annotation]


class _Texts(BaseModel):
    text: list[str]


class _HubEntry(BaseModel):
    """A list of annotations is a mapping of lists there."""

    tripleset: Triples
    annotations: _Texts


class Dart(Generation):
    """Triples, their relations in lower case, to a text. Entries with equal triples are scored as one.

    The official test file's 5,097 entries have 4,159 contexts: it holds WebNLG's 891 unseen entries twice, and the
    reference code, whose predictions are keyed by context, scores those once too.
    """

    name: Literal["dart"] = "dart"
    metric: ClassVar[str] = "generation_eval"
    sizes: ClassVar[dict[str, Size]] = {
        "train": Size(30526, 62659),
        "validation": Size(2768, 2721),
        "test": Size(5097, 4159),
    }
    older: ClassVar[dict[tuple[str, int], str]] = {
        (
            "test",
            6959,
        ): " since April 2021; this is the file before, with 1862 entries of WebNLG's test set more, "
        "as on the hub and in the reference code"
    }

    def official_rows(self, split: str, path: str) -> tuple[str, list[Row]]:
        file = official_file(path, split, ("", "dart", "data/v1.1.1", "v1.1.1"), (FILES,), GET_IT)
        entries = shaped(list[_Entry], read_json(file), str(file))
        return str(file), _rows(
            str(file), ((e.tripleset, [a.text for a in e.annotations]) for e in entries)
        )

    def hub_rows(self, split: str, revision: str | None) -> tuple[str, list[Row]]:
        where = f"{HUB}, {split}"
        instead = f"Give data.path=FOLDER. {GET_IT}"
        table = hub_table(HUB, f"default/{split}/*.parquet", split, revision, instead)
        entries = (shaped(_HubEntry, row, f"{where} row {i}") for i, row in enumerate(table))
        return where, _rows(where, ((e.tripleset, e.annotations.text) for e in entries))


def _rows(
    source: str, entries: Iterable[tuple[list[tuple[str, str, str]], list[str]]]
) -> list[Row]:
    """Empty texts are left out, and logged: the official test file has one, in entry 115 (from 0)."""
    made, lacking = [], []
    for number, (triples, texts) in enumerate(entries):
        kept = tuple(text for text in texts if text.strip())
        if len(kept) < len(texts) or not kept:
            lacking.append(number)
        made.append(Row(triples_text((s, relation.lower(), o) for s, relation, o in triples), kept))
    if lacking:
        log.info(
            "%s: entries with an empty text, or with none: %d, the first is %d",
            source,
            len(lacking),
            lacking[0],
        )
    if not any(row.texts for row in made):
        raise DataError(f"{source}: no entry has a text")
    return made


PLUGIN = Dart
