"""The files that we write are those that the safetensors library reads, whatever the disk does between."""

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lorakit.adapters import tensorfile
from lorakit.adapters.tensorfile import Kind, write_tensors

TENSORS = {
    "half": torch.randn(3, 5).half(),
    "b.c": torch.randn(()),
    "empty": torch.zeros(0, 4),
    "wide": torch.randn(2, 3, dtype=torch.float64),
    "turned": torch.randn(4, 6).T,
    "é": torch.randn(7).bfloat16(),
}
KINDS = {name: Kind(tuple(tensor.shape), tensor.dtype) for name, tensor in TENSORS.items()}


def _written(file, kinds=KINDS, metadata=None):
    write_tensors(file, kinds, TENSORS.__getitem__, metadata)
    return load_file(file)


def test_the_library_reads_what_is_written(tmp_path):
    found = _written(tmp_path / "t.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_as_many_bytes_as_the_library_writes(tmp_path):
    _written(tmp_path / "ours.safetensors")
    kept = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    save_file(kept, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    ours, theirs = ((tmp_path / f"{who}.safetensors").read_bytes() for who in ("ours", "theirs"))
    header = [
        json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")]) for file in (ours, theirs)
    ]
    assert len(ours) == len(theirs)
    assert {n: (h["dtype"], h["shape"]) for n, h in header[0].items() if n in KINDS} == {
        n: (h["dtype"], h["shape"]) for n, h in header[1].items() if n in KINDS
    }


def test_every_number_is_aligned(tmp_path):
    _written(tmp_path / "t.safetensors")
    content = (tmp_path / "t.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert size % 8 == 0
    for name, (_, dtype) in KINDS.items():
        assert header[name]["data_offsets"][0] % dtype.itemsize == 0


def test_a_tensor_is_cast_to_what_was_said(tmp_path):
    found = _written(
        tmp_path / "t.safetensors",
        {name: Kind(k.shape, torch.bfloat16) for name, k in KINDS.items()},
    )
    assert all(torch.equal(found[name], TENSORS[name].to(torch.bfloat16)) for name in TENSORS)


def test_the_metadata_are_kept_in_order(tmp_path):
    _written(tmp_path / "t.safetensors", metadata={"z": "1", "a": '"quoted" é'})
    with safe_open(tmp_path / "t.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt", "z": "1", "a": '"quoted" é'}
    content = (tmp_path / "t.safetensors").read_bytes()
    assert content.index(b'"a":') < content.index(b'"format":') < content.index(b'"z":')


@pytest.mark.parametrize(
    ("at_once", "pieces", "most"), [(1 << 24, 1024, 3), (10, 2, 7), (0, 1, 1), (40, 3, 10**9)]
)
def test_a_disk_that_takes_some_bytes_at_a_time(tmp_path, monkeypatch, at_once, pieces, most):
    _written(tmp_path / "straight.safetensors")

    def some(handle, parts):
        assert len(parts) <= pieces
        return os.write(handle, b"".join(parts)[:most])

    monkeypatch.setattr(tensorfile, "_AT_ONCE", at_once)
    monkeypatch.setattr(tensorfile, "_PIECES", pieces)
    monkeypatch.setattr(os, "writev", some)
    _written(tmp_path / "t.safetensors")
    assert (tmp_path / "t.safetensors").read_bytes() == (
        tmp_path / "straight.safetensors"
    ).read_bytes()


def test_more_tensors_than_one_call_takes(tmp_path):
    many = {f"t{i}": torch.tensor([float(i)]) for i in range(3000)}
    write_tensors(
        tmp_path / "t.safetensors", {n: Kind((1,), torch.float32) for n in many}, many.__getitem__
    )
    found = load_file(tmp_path / "t.safetensors")
    assert all(torch.equal(found[name], many[name]) for name in many)


def test_another_shape_than_was_said_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"half is \(3, 5\), and \(5, 3\) was said"):
        write_tensors(
            tmp_path / "t.safetensors", {"half": Kind((5, 3), torch.float16)}, TENSORS.__getitem__
        )
