"""WebNLG's entries, from the official XML files, from the reference code's JSON, or from the hub's table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from lorakit.errors import DataError
from lorakit.tasks._sources import read_json, read_xml, shaped

TEST = "testdata_with_lex"
"""The test set with its texts. The test folder also holds it without, and its last 891 entries by themselves."""


class Entry(NamedTuple):
    """Wherever it comes from."""

    where: str
    category: str
    triples: list[tuple[str, ...]]
    texts: list[tuple[str, str, str]]
    """(where, comment, text)"""


def xml_entries(folder: Path) -> Iterator[Entry]:
    """Of all files below a folder, in the order of their paths, as the reference code's JSON has them."""
    files = sorted(folder.rglob("*.xml"))
    files = [file for file in files if file.stem == TEST] or [
        file for file in files if "no_lex" not in file.stem
    ]
    if not files:
        raise DataError(
            f"{folder}: no .xml file with texts in it; the test set with texts is {TEST}.xml"
        )
    for file in files:
        root, line = read_xml(file)
        if root.tag != "benchmark":
            raise DataError(
                f"{file}:{line[root]}: <{root.tag}>; a file of WebNLG is a <benchmark> of entries"
            )
        for entry in root.iter("entry"):
            where = f"{file}:{line[entry]}"
            sets = entry.findall("modifiedtripleset")
            if len(sets) > 1:
                raise DataError(f"{where}: an entry with {len(sets)} modifiedtripleset; it has one")
            triples = [
                _triple(triple.text or "", f"{file}:{line[triple]}")
                for one in sets
                for triple in one
            ]
            texts = [
                (f"{file}:{line[lex]}", lex.get("comment", ""), lex.text or "")
                for lex in entry.iterfind("lex")
            ]
            yield Entry(where, entry.get("category", ""), triples, texts)


def _triple(text: str, where: str) -> tuple[str, ...]:
    parts = tuple(text.split(" | "))
    if len(parts) != 3 or not all(part.strip() for part in parts):
        raise DataError(f"{where}: {text!r} is not SUBJECT | PROPERTY | OBJECT")
    return parts


class _Triple(BaseModel):
    subject: str
    property: str
    object: str


class _Lex(BaseModel):
    comment: str
    lex: str


class _JsonEntry(BaseModel):
    category: str
    modifiedtripleset: list[_Triple]
    lexicalisations: list[_Lex]


class _Json(BaseModel):
    """The reference code's: each entry alone in a mapping, under its number."""

    entries: list[dict[str, _JsonEntry]]


def json_entries(file: Path) -> Iterator[Entry]:
    for one in shaped(_Json, read_json(file), str(file)).entries:
        for number, entry in one.items():
            where = f"{file}: entry {number}"
            triples = [
                (triple.subject, triple.property, triple.object)
                for triple in entry.modifiedtripleset
            ]
            texts = [
                (f"{where}, text {i}", lex.comment, lex.lex)
                for i, lex in enumerate(entry.lexicalisations, 1)
            ]
            yield Entry(where, entry.category, triples, texts)


class _HubTriples(BaseModel):
    mtriple_set: list[list[str]] = Field(min_length=1, max_length=1)


class _HubTexts(BaseModel):
    comment: list[str]
    text: list[str]


class _HubEntry(BaseModel):
    category: str
    modified_triple_sets: _HubTriples
    lex: _HubTexts
    test_category: str | None = None


def hub_entries(table: Iterable[Any], source: str, split: str) -> Iterator[Entry]:
    """The hub's test split is the three files of the test folder; only that with all texts is read."""
    for number, row in enumerate(table):
        where = f"{source} row {number}"
        entry = shaped(_HubEntry, row, where)
        if split == "test" and entry.test_category != TEST:
            continue
        triples = [_triple(triple, where) for triple in entry.modified_triple_sets.mtriple_set[0]]
        if len(entry.lex.comment) != len(entry.lex.text):
            raise DataError(
                f"{where}: {len(entry.lex.comment)} comments for {len(entry.lex.text)} texts"
            )
        texts = [
            (where, comment, text)
            for comment, text in zip(entry.lex.comment, entry.lex.text, strict=True)
        ]
        yield Entry(where, entry.category, triples, texts)
