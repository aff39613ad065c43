"""pycocoevalcap: missing, damaged, and texts that look like its own signs."""

from __future__ import annotations

import gzip
import logging
from zipfile import ZipFile

import pytest

from lorakit.errors import MetricError
from lorakit.metrics import metrics
from lorakit.metrics._meteor.class_file import string_constants
from lorakit.metrics._meteor.data import entry, find, look
from lorakit.metrics._meteor.ptb import official

NASTY = "a ||| b\nc |||| d\r\u2028e"


def test_the_files_are_found(small_data, caplog):
    assert look() == find("x") == small_data
    assert not caplog.messages


def test_no_package(no_data, caplog):
    assert find("METEOR is left out") is None
    (record,) = caplog.record_tuples
    assert record[:2] == ("lorakit.metrics._meteor.data", logging.WARNING)
    assert "pycocoevalcap" in record[2]
    assert record[2].startswith("METEOR is left out: ")
    assert '`pip install "lorakit[nlg]"`' in record[2]


@pytest.mark.parametrize("which", ["meteor", "paraphrases", "tokenizer"])
def test_a_package_without_a_file(which, small_data, caplog):
    path = getattr(small_data, which)
    path.unlink()
    assert find("x") is None
    assert str(path) in caplog.messages[0]


def test_one_warning_for_a_suite(no_data, caplog):
    assert list(metrics.get("e2e_metrics")(["a b c d"], ["a b c d"])) == [
        "bleu",
        "nist",
        "rouge_l_approx",
        "cider_approx",
    ]
    (message,) = caplog.messages
    assert "METEOR is left out, ROUGE-L and CIDEr are computed on approximate tokens" in message
    assert metrics.get("meteor")(["a"], ["a"]) == {}


@pytest.mark.parametrize("which", ["meteor", "paraphrases", "tokenizer"])
@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_damaged_file(which, damage, small_data):
    path = getattr(small_data, which)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "other": b"text" * 30, "empty": b""}[damage])
    with pytest.raises(MetricError, match=path.name):
        metrics.get("meteor")(["a"], ["a"])


def test_an_archive_of_another_version(small_data):
    with ZipFile(small_data.tokenizer, "w") as archive:
        archive.writestr("other", "x")
    with pytest.raises(MetricError, match=r"PTBLexer\.class"):
        metrics.get("rouge_l")(["a"], ["a"])


def test_a_table_of_another_form(small_data):
    small_data.paraphrases.write_bytes(gzip.compress(b"0.5\na\n"))
    with pytest.raises(MetricError, match=small_data.paraphrases.name):
        metrics.get("meteor")(["a"], ["a"])


def value_with(name: str, text: str) -> float:
    return metrics.get(name)([text, "f g", ""], [["x", text], ["f g", "i"], ["h"]])["meteor"]


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("meteor", "a b c | d e"),
        ("e2e_metrics", "a b c | d e"),
        ("generation_eval", "a | | | b c | | | | d e"),
    ],
)
def test_signs_of_the_protocol_in_texts(name, clean, small_data):
    """The official wrappers would read a text that held them as several."""
    found, expected = (value_with(name, text) for text in (NASTY, clean))
    assert found == expected
    assert found > 0


def test_tokens_of_the_small_automaton(small_data):
    found = official(small_data, ["The  cat\nsat", "", " ", "\ud83d x", "😀"])
    assert found == [["the", "cat", "sat"], [], [], ["x"], ["😀"]]


def test_constants_of_a_class(small_data):
    code = entry(small_data.tokenizer, "edu/stanford/nlp/process/PTBLexer.class")
    found = string_constants(code)
    assert len(found) == 5
    assert found["ZZ_ATTRIBUTE_PACKED_0"] == "\x03\x00\x01\x01\x02\x09"
