"""Flat arrays of tokens give back the examples that were put in, and processes share them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lorakit.batches import IGNORE, NOWHERE, Encoded, TokenRows, lengths_in
from lorakit.batches.token_rows import TokenRowsWriter
from lorakit.files.arrays import GrowingArrays, open_arrays
from lorakit.tasks import Example


def _item(n: int, target=None, **more) -> Encoded:
    ids = list(range(n, n + 2 + n % 3))
    inputs = {"input_ids": ids, "attention_mask": [1] * len(ids)}
    return Encoded(f"e{n}", inputs, target, **{"trains": [], **more})


ITEMS = {
    "causal": [_item(n, trains=[IGNORE] * (1 + n % 3) + [n]) for n in range(5)],
    "labels": [_item(n, n % 2) for n in range(5)],
    "values": [_item(n, n / 3) for n in range(5)],
    "multi-label": [_item(n, (n % 2, 1, 0)) for n in range(5)],
    "tokens": [_item(n, (2,) * (n % 2 + 1), places=(0, 1)[: n % 2 + 1]) for n in range(5)],
    "spans": [_item(n, (0, 1), offsets=(NOWHERE, (n, n + 4))) for n in range(5)],
    "hidden": [_item(n, None if n % 2 else 1) for n in range(5)],
}


def _rows(items: list[Encoded], folder=None) -> TokenRows:
    arrays = GrowingArrays(folder)
    writer = TokenRowsWriter(arrays)
    numbered = list(enumerate(items))
    writer.add(0, numbered[:3])
    writer.add(3, [(number - 3, item) for number, item in numbered[3:]])
    arrays.finish(writer.facts)
    examples = [Example(item.id, "") for item in items]
    if folder is None:
        return TokenRows(examples, arrays.held(), writer.facts)
    return TokenRows(examples, *open_arrays(folder))


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("items", ITEMS.values(), ids=list(ITEMS))
def test_what_is_taken_out_is_what_was_put_in(items, on_disk, tmp_path):
    rows = _rows(items, tmp_path if on_disk else None)
    assert list(rows) == items
    assert rows[-2:] == items[-2:]
    assert rows[-1] == items[-1]
    assert [type(row.target) for row in rows] == [type(item.target) for item in items]
    assert lengths_in(rows) == lengths_in(items)
    with pytest.raises(IndexError):
        rows[len(items)]


def test_windows_keep_the_number_of_their_example():
    arrays = GrowingArrays()
    writer = TokenRowsWriter(arrays)
    writer.add(0, [(0, ITEMS["spans"][0]), (0, ITEMS["spans"][0]), (2, ITEMS["spans"][2])])
    arrays.finish(writer.facts)
    rows = TokenRows([Example(f"e{n}", "") for n in range(3)], arrays.held(), writer.facts)
    assert rows.owners.tolist() == [0, 0, 2]
    assert [row.id for row in rows] == ["e0", "e0", "e2"]


def test_a_number_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="2147483648"):
        GrowingArrays().extend("x", [1, 2**31])


def test_two_processes_map_the_same_file(tmp_path):
    rows = _rows(ITEMS["labels"], tmp_path)
    mapped = rows.arrays["field.input_ids"]
    assert isinstance(mapped, np.memmap)
    file = str(tmp_path / "field.input_ids.bin")
    code = (
        "import pathlib, sys; from lorakit.files.arrays import open_arrays; "
        "arrays, _ = open_arrays(pathlib.Path(sys.argv[1])); "
        "assert sys.argv[2] in open('/proc/self/maps').read(); "
        "print(arrays['field.input_ids'].tolist())"
    )
    call = [sys.executable, "-c", code, str(tmp_path), file]
    other = subprocess.run(call, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(mapped.tolist())


@pytest.mark.slow
def test_a_million_rows_take_little_memory(tmp_path):
    """Resident memory beyond the imports, in MiB: the rows of the file and their tokens."""
    code = """
from pathlib import Path
from lorakit.bases.tokenizer import load_tokenizer
from lorakit.batches import encode_cached
from lorakit.models import Model
from lorakit.tasks import Data, Example, Head
def resident():
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024
words = load_tokenizer(Model(name="lorakit:tiny_encoder"))
words(["a cat"] * 9)
before = resident()
rows = [Example(f"train-{n}", f"{n} the cat is happy", target=n % 2, where=f"a.csv:{n}")
        for n in range(1_000_000)]
found = encode_cached(rows, words, Head.CLASSIFICATION, Data())
assert len(found) == 1_000_000 and found[7].inputs["input_ids"]
print(resident() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of the memory is read from /proc")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"LORAKIT_CACHE": str(tmp_path)},
    )
    assert float(done.stdout) < 700
