"""The official files, where the environment has them: counts as GLUE publishes them.

Their oddities, in sentences of our own, are in `test_glue_upstream.py`, which runs always.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

import pytest

from lorakit.tasks import Data
from lorakit.tasks.glue import Glue

ROOT = os.environ.get("LORAKIT_DATA")
pytestmark = pytest.mark.skipif(
    ROOT is None, reason="LORAKIT_DATA (a folder with glue/CoLA, glue/MRPC ...) is not set"
)


def read(name: str, split: str):
    return Glue(name=f"glue/{name}").read(split, Data(path=str(Path(str(ROOT)) / "glue")))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "stsb", "rte"])
def test_whole_splits_have_the_official_counts(name, split, caplog):
    with caplog.at_level(logging.WARNING):
        examples = read(name, split)
    assert len(examples) == Glue(name=f"glue/{name}").expected_rows()[split]
    assert [example.id for example in examples] == [f"{split}-{i}" for i in range(len(examples))]
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("cola", {1: 721, 0: 322}),
        ("mrpc", {1: 279, 0: 129}),
        ("rte", {0: 146, 1: 131}),
        ("qnli", {0: 2702, 1: 2761}),
        ("sst2", {1: 444, 0: 428}),
    ],
)
def test_labels_of_the_validation_splits(name, counts):
    assert Counter(example.target for example in read(name, "validation")) == counts


def test_qnli_test_is_whole():
    assert len(read("qnli", "test")) == 5463


def test_first_rows():
    assert read("cola", "train")[0].text.startswith("Our friends won't buy this analysis")
    stsb = read("stsb", "train")[0]
    assert (stsb.text, stsb.pair, stsb.target) == (
        "A plane is taking off.",
        "An air plane is taking off.",
        5.0,
    )
    assert read("mrpc", "train")[0].text.startswith(
        'Amrozi accused his brother , whom he called " the witness "'
    )
    assert all(0 <= example.target <= 5 for example in read("stsb", "validation"))


def test_slices_say_so_and_the_malformed_line_is_skipped(caplog):
    with caplog.at_level(logging.WARNING):
        examples = read("qqp", "train")
    assert (len(examples), examples[0].id) == (23496, "train-1")
    assert "QQP/train.tsv:2: 5 fields instead of 6; 1 of 23497 rows" in caplog.text
    assert "23496 rows; the official train split has 363846" in caplog.text


@pytest.mark.parametrize(
    ("split", "rows"),
    [("train", 12925), ("validation_matched", 7469), ("validation_mismatched", 1000)],
)
def test_mnli(split, rows):
    examples = read("mnli", split)
    assert len(examples) == rows
    assert {example.target for example in examples} == {0, 1, 2}
