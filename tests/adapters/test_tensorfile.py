"""The safetensors library reads the files that we write, however the disk takes the bytes."""

import io
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lorakit.adapters.tensorfile import TensorSpec, write_tensors

TENSORS = {
    "half": torch.randn(3, 5).half(),
    "b.c": torch.randn(()),
    "empty": torch.zeros(0, 4),
    "wide": torch.randn(2, 3, dtype=torch.float64),
    "turned": torch.randn(4, 6).T,
    "é": torch.randn(7).bfloat16(),
}
SPECS = {name: TensorSpec(tuple(tensor.shape), tensor.dtype) for name, tensor in TENSORS.items()}


def _written(file, specs=SPECS, metadata=None):
    write_tensors(file, specs, TENSORS.__getitem__, metadata)
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
    assert {n: (h["dtype"], h["shape"]) for n, h in header[0].items() if n in SPECS} == {
        n: (h["dtype"], h["shape"]) for n, h in header[1].items() if n in SPECS
    }


def test_every_number_is_aligned(tmp_path):
    _written(tmp_path / "t.safetensors")
    content = (tmp_path / "t.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert size % 8 == 0
    for name, (_, dtype) in SPECS.items():
        assert header[name]["data_offsets"][0] % dtype.itemsize == 0


def test_a_tensor_is_cast_to_the_specified_dtype(tmp_path):
    found = _written(
        tmp_path / "t.safetensors",
        {name: TensorSpec(k.shape, torch.bfloat16) for name, k in SPECS.items()},
    )
    assert all(torch.equal(found[name], TENSORS[name].to(torch.bfloat16)) for name in TENSORS)


def test_the_metadata_are_kept_in_order(tmp_path):
    _written(tmp_path / "t.safetensors", metadata={"z": "1", "a": '"quoted" é'})
    with safe_open(tmp_path / "t.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt", "z": "1", "a": '"quoted" é'}
    content = (tmp_path / "t.safetensors").read_bytes()
    assert content.index(b'"a":') < content.index(b'"format":') < content.index(b'"z":')


class _SlowDisk(io.FileIO):
    """A file that takes a few bytes in one call."""

    def write(self, data):
        return super().write(memoryview(data)[:7])


def test_a_disk_that_takes_a_few_bytes_at_a_time(tmp_path, monkeypatch):
    _written(tmp_path / "straight.safetensors")
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, mode, buffering: io.BufferedWriter(_SlowDisk(path, mode), buffering),
    )
    write_tensors(tmp_path / "t.safetensors", SPECS, TENSORS.__getitem__)
    monkeypatch.undo()
    expected = (tmp_path / "straight.safetensors").read_bytes()
    assert (tmp_path / "t.safetensors").read_bytes() == expected


def test_many_small_tensors(tmp_path):
    many = {f"t{i}": torch.tensor([float(i)]) for i in range(3000)}
    write_tensors(
        tmp_path / "t.safetensors",
        {n: TensorSpec((1,), torch.float32) for n in many},
        many.__getitem__,
    )
    found = load_file(tmp_path / "t.safetensors")
    assert all(torch.equal(found[name], many[name]) for name in many)


def test_another_shape_than_specified_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"half.*\(3, 5\).*\(5, 3\)"):
        write_tensors(
            tmp_path / "t.safetensors",
            {"half": TensorSpec((5, 3), torch.float16)},
            TENSORS.__getitem__,
        )
