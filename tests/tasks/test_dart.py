from __future__ import annotations

import gzip
import json
import logging
import os
import re
from itertools import zip_longest
from pathlib import Path

import pytest

from lorakit.errors import DataError
from lorakit.tasks import Data
from lorakit.tasks.dart import Dart

ROOT = os.environ.get("LORAKIT_DATA")
real = pytest.mark.skipif(ROOT is None, reason="LORAKIT_DATA (a folder with dart) is not set")
COLLEGE = "Mars Hill : joined : 1973 | [TABLECONTEXT] : [title] : Colleges"


def read(split: str, folder):
    return Dart().read(split, Data(path=str(folder)))


def test_every_text_is_learnt_and_relations_are_lower_case(dart_folder):
    assert [(e.id, e.text, e.target, e.references, e.eos) for e in read("train", dart_folder)] == [
        ("train-0", COLLEGE, " It joined in 1973.", (), True),
        ("train-1", COLLEGE, " In 1973 it joined.", (), True),
        ("train-2", "A : b : C", " A b C.", (), True),
    ]


def test_equal_contexts_are_scored_once(dart_folder):
    assert [(e.id, e.text, e.references, e.group) for e in read("validation", dart_folder)] == [
        ("validation-0", "A : b : C", ("A b C.", "C, says A.", "A b C."), ""),
        ("validation-1", COLLEGE, ("It joined then.",), ""),
        ("validation-3", "D : b : C", ("D b C.",), ""),
    ]
    rows = Dart().rows_of("validation", Data(path=str(dart_folder)))
    assert rows == ["validation-0", "validation-1", "validation-0", "validation-3"]


def test_empty_texts_are_left_out_and_said(dart_folder, caplog):
    with caplog.at_level(logging.INFO):
        examples = read("test", dart_folder)
    assert [(e.id, e.references) for e in examples] == [
        ("test-0", ("A b &amp; C.",)),
        ("test-1", ("D b C.",)),
        ("test-3", ("F b C.",)),
    ]
    assert (
        "full-test.json: entries with an empty text or without a text: 2, the first is 0"
        in caplog.text
    )
    assert Dart().rows_of("test", Data(path=str(dart_folder))) == ["test-0", "test-1", "", "test-3"]


def test_other_counts_are_said_and_the_older_file_is_known(write, tmp_path, caplog):
    entry = {"tripleset": [["A", "B", "C"]], "annotations": [{"source": "e2e", "text": "A b C."}]}
    write("dart-v1.1.1-full-test.json", json.dumps([entry] * 6959))
    assert len(read("test", tmp_path)) == 1
    assert (
        "6959 rows; the official test split has 5097 since April 2021; this is the file before"
        in caplog.text
    )
    caplog.clear()
    write("dart-v1.1.1-full-test.json", json.dumps([entry]))
    read("test", tmp_path)
    assert caplog.messages[-1].endswith("1 rows; the official test split has 5097")


def test_packed_files_and_the_folder_around_them(dart_folder):
    whole = read("validation", dart_folder)
    file = dart_folder / "dart-v1.1.1-full-dev.json"
    packed = dart_folder.parent / "data" / "v1.1.1" / f"{file.name}.gz"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert read("validation", packed.parent) == read("validation", dart_folder.parent) == whole
    with pytest.raises(
        DataError,
        match=r"v1.1.1: no dart-v1.1.1-full-train.json for the train split. The files: http",
    ):
        read("train", packed.parent)


TRIPLES = [["A", "B", "C"]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"entries": []}, r"dev.json: Input should be a valid list, found {'entries': \[\]}"),
        ([{"tripleset": TRIPLES}], r"dev.json: \[0\].annotations: Field required"),
        (
            [{"tripleset": [], "annotations": []}],
            r"dev.json: \[0\].tripleset: List should have at least 1 item",
        ),
        (
            [{"tripleset": [["A", "B"]], "annotations": []}],
            r"dev.json: \[0\].tripleset\[0\]\[2\]: Field required",
        ),
        (
            [{"tripleset": [["A", "B", 5]], "annotations": []}],
            r"dev.json: \[0\].tripleset\[0\]\[2\]: .* found 5",
        ),
        (
            [{"tripleset": TRIPLES, "annotations": [{"text": None}]}],
            r"\[0\].annotations\[0\].text: .*found None",
        ),
        ([{"tripleset": TRIPLES, "annotations": []}], r"dev.json: no entry has a text"),
        ([], r"dev.json: no entry has a text"),
    ],
)
def test_wrong_files(write, tmp_path, value, message):
    write("dart-v1.1.1-full-dev.json", json.dumps(value))
    with pytest.raises(DataError, match=message):
        read("validation", tmp_path)


def hub(monkeypatch, folder: Path, rows: list[dict]) -> list:
    import datasets

    asked = []
    load = datasets.load_dataset
    file = folder / "default" / "test" / "0000.parquet"
    file.parent.mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(str(file))

    def from_disk(name, revision, **kwargs):
        asked.append((name, revision, kwargs))
        return load(str(folder), cache_dir=str(folder / "cache"), **kwargs)

    monkeypatch.setattr(datasets, "load_dataset", from_disk)
    return asked


def test_the_hub(monkeypatch, tmp_path):
    rows = [
        {
            "tripleset": TRIPLES * 2,
            "subtree_was_extended": extended,
            "annotations": {"source": texts, "text": texts},
        }
        for extended, texts in ((True, ["x", "y"]), (None, []), (False, ["z"]))
    ]
    asked = hub(monkeypatch, tmp_path, rows)
    assert [(e.id, e.text, e.references) for e in Dart().read("test", Data())] == [
        ("test-0", "A : b : C | A : b : C", ("x", "y", "z"))
    ]
    files = {"data_files": {"test": "default/test/*.parquet"}, "split": "test"}
    assert asked == [("Yale-LILY/dart", "refs/convert/parquet", files)]


def test_wrong_hub_rows(monkeypatch, tmp_path):
    hub(monkeypatch, tmp_path, [{"tripleset": [["A", "B"]], "annotations": {"text": ["x"]}}])
    with pytest.raises(
        DataError, match=r"Yale-LILY/dart, test row 0: tripleset\[0\]\[2\]: Field required"
    ):
        Dart().read("test", Data())


@real
@pytest.mark.parametrize(
    ("split", "folder", "texts"), [("validation", "dart", 6980), ("test", "dart/rebuilt", 12551)]
)  # one of the 12,552 is empty
def test_official_counts(split, folder, texts, caplog):
    with caplog.at_level(logging.INFO):
        examples = read(split, Path(str(ROOT)) / folder)
    assert len(examples) == Dart().expected_rows()[split]
    assert sum(len(example.references) for example in examples) == texts
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == (
        ["entries with an empty text or without a text: 1, the first is 115"]
        if split == "test"
        else []
    )


@real
@pytest.mark.slow
def test_outputs_by_row_give_the_known_bleu():
    """BART-large, one line per entry: 48.57 over contexts, six references at most, lower case,
    split at \\W."""
    from sacrebleu.metrics.bleu import BLEU

    def normal(text: str) -> str:
        return " ".join(" ".join(re.split(r"(\W)", text.lower())).split())

    folder = Path(str(ROOT)) / "dart"
    data = Data(path=str(folder / "rebuilt"))
    rows = Dart().rows_of("test", data)
    lines = (
        (folder / "eval_example" / "bart-large_dart.txt").read_text(encoding="utf-8").splitlines()
    )
    assert (len(rows), len(lines)) == (5097, 5097)
    said = dict(zip(rows, lines, strict=True))
    examples = Dart().read("test", data)
    references = [[normal(text) for text in example.references[:6]] for example in examples]
    streams = [list(stream) for stream in zip_longest(*references)]
    outputs = [normal(said[example.id]) for example in examples]
    assert round(BLEU(tokenize="13a", force=True).corpus_score(outputs, streams).score, 2) == 48.57
