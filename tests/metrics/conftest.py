"""pycocoevalcap that is missing, a small one with tables of our own, and the real one."""

from __future__ import annotations

import csv
import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest

from lorakit.metrics._meteor import data as nlg_data
from lorakit.metrics._meteor.data import NlgData, look

# phrases that mean the same, in both directions
PARAPHRASES = [("near", "close to"), ("costs little", "is cheap")]
WORDS = {
    "nonbreaking/english.prefixes": "# none\nmr\nno #NUMERIC_ONLY#\n",
    "function/english.words": "the\na\nof\n",
    "synonym/english.synsets": "house\n1 2\nhome\n2\nmouse\n3\nrodent\n3\n",
    "synonym/english.exceptions": "mouse\nmice\n",
}


@pytest.fixture
def no_data(monkeypatch) -> None:
    monkeypatch.setattr(nlg_data, "find_spec", lambda name: None)


@pytest.fixture
def small_data(tmp_path, monkeypatch) -> NlgData:
    """A package whose tokeniser splits at spaces, and which knows a few words."""
    folder = tmp_path / "small"
    data = NlgData(*(folder / "pycocoevalcap" / file for file in nlg_data.FILES))
    for path in data:
        path.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(data.meteor, "w") as archive:
        for name, text in WORDS.items():
            archive.writestr(name, text)
    with ZipFile(data.tokenizer, "w") as archive:
        code = class_file(splitting_at_spaces())
        archive.writestr("edu/stanford/nlp/process/PTBLexer.class", code)
    both = PARAPHRASES + [(b, a) for a, b in PARAPHRASES]
    lines = "".join(f"0.5\n{a}\n{b}\n" for a, b in both)
    data.paraphrases.write_bytes(gzip.compress(lines.encode()))
    spec = SimpleNamespace(submodule_search_locations=[str(folder / "pycocoevalcap")])
    monkeypatch.setattr(nlg_data, "find_spec", lambda name: spec)
    return data


def splitting_at_spaces() -> dict[str, str]:
    """An automaton as JFlex packs it. Characters: others, spaces, line feeds. State 2 is the first
    one, then come a word, a space, and a line feed."""
    start, word, none = [4, 5, 6], [4, 0, 0], [0, 0, 0]
    return {
        "ZZ_CMAP_PACKED": packed([(10, 0), (1, 2), (21, 0), (1, 1), (65503, 0)]),
        "ZZ_ROWMAP_PACKED_0": packed([(0, row) for row in (6, 6, 0, 3, 6, 6)]),
        "ZZ_TRANS_PACKED_0": packed([(1, state) for state in (*start, *word, *none)]),
        "ZZ_ACTION_PACKED_0": packed([(3, 0), (1, 3), (1, 7), (1, 5)]),
        "ZZ_ATTRIBUTE_PACKED_0": packed([(3, 0), (1, 1), (2, 9)]),
    }


def packed(pairs: list[tuple[int, int]]) -> str:
    return "".join(chr(number) for pair in pairs for number in pair)


def class_file(constants: dict[str, str]) -> bytes:
    """A Java class with these string constants, and a number among them."""
    pool = [text("ConstantValue"), text("I"), b"\x03\x00\x00\x00\x07", b"\x05" + bytes(8), b""]
    fields = [field(2, 2, 3)]
    for name, value in constants.items():
        # numbers in the pool begin at 1
        pool += [text(name), text(value), b"\x08" + struct.pack(">H", len(pool) + 2)]
        fields.append(field(len(pool) - 2, 2, len(pool)))
    head = b"\xca\xfe\xba\xbe\x00\x00\x00\x32" + struct.pack(">H", len(pool) + 1)
    return head + b"".join(pool) + bytes(8) + struct.pack(">H", len(fields)) + b"".join(fields)


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass").replace(b"\x00", b"\xc0\x80")
    return b"\x01" + struct.pack(">H", len(encoded)) + encoded


def field(name: int, kind: int, constant: int) -> bytes:
    return struct.pack(">4HHIH", 0, name, kind, 1, 1, 2, constant)


@pytest.fixture(scope="session")
def real_data() -> NlgData:
    try:
        return look()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def data() -> Path:
    if "LORAKIT_DATA" not in os.environ:
        pytest.skip("LORAKIT_DATA (a folder with e2e_nlg/ and dart/) is not set")
    return Path(os.environ["LORAKIT_DATA"])


@pytest.fixture(scope="session")
def e2e(data) -> Callable[[str], tuple[list[str], list[list[str]]]]:
    """`e2e(system)` is its outputs on the 630 inputs of the test set, and their references."""
    references: dict[str, list[str]] = {}
    with (data / "e2e_nlg/testset_w_refs.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            references.setdefault(row["mr"], []).append(row["ref"])

    def outputs(system: str) -> tuple[list[str], list[list[str]]]:
        with (data / f"e2e_nlg/system_outputs/{system}.tsv").open(
            encoding="utf-8-sig", newline=""
        ) as file:
            found = {row["MR"]: row["output"] for row in csv.DictReader(file, delimiter="\t")}
        assert len(found) == len(references) == 630
        return [found[mr] for mr in references], list(references.values())

    return outputs
