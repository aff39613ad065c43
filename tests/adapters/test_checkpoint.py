"""Files and tensors of torch that are not what they seem, as a checkpoint of the reference code."""

from __future__ import annotations

import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lorakit.adapters.checkpoint import read_checkpoint
from lorakit.errors import AdapterError
from tests.attaching import attach

A, B = (
    "roberta.encoder.layer.0.attention.self.query.lora_A",
    "roberta.encoder.layer.0.attention.self.query.lora_B",
)
ODD: dict[str, Any] = {
    "stride 0": torch.zeros(1).expand(100_000, 100_000),
    "stride 0 in one dimension": torch.ones(8, 1).expand(8, 10**9),
    "overlapping": torch.zeros(100).as_strided((50, 51), (1, 1)),
    "complex": torch.ones(4, 4, dtype=torch.complex64),
    "sparse": torch.eye(4).to_sparse(),
    "sparse and huge": torch.sparse_coo_tensor(
        torch.tensor([[0], [0]]), torch.ones(1), (10**6, 10**6)
    ),
    "csr": torch.eye(4).to_sparse_csr(),
    "meta": torch.empty(10**5, 10**5, device="meta"),
    "quantized": torch.quantize_per_tensor(torch.ones(4, 4), 0.1, 0, torch.qint8),
    "not finite": torch.tensor([float("nan")]),
    "text": "text",
    "a list": [torch.ones(2)],
    "nested": {"inner": torch.ones(2)},
    "none": None,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "older"])
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_tensor_is_one_error(tmp_path, kind, legacy):
    file = tmp_path / "odd.bin"
    try:
        torch.save(
            {A: torch.ones(4, 4), B: ODD[kind]}, file, _use_new_zipfile_serialization=not legacy
        )
    except (NotImplementedError, RuntimeError):
        pytest.skip("torch does not save it so")
    with pytest.raises(AdapterError, match=r"odd\.bin") as error:
        read_checkpoint(file)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "held",
    [{1: torch.ones(2)}, {b"a": torch.ones(2)}, {("a",): torch.ones(2)}, [], {}, torch.ones(2)],
    ids=repr,
)
def test_no_state_dict(tmp_path, held):
    file = tmp_path / "odd.bin"
    torch.save(held, file)
    with pytest.raises(AdapterError, match=r"odd\.bin"):
        read_checkpoint(file)


def test_a_compressed_file_is_refused_before_it_is_unpacked(tmp_path):
    plain, small = tmp_path / "plain.bin", tmp_path / "small.bin"
    torch.save({A: torch.zeros(1000, 1000)}, plain)
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for part in source.infolist():
            target.writestr(part.filename, source.read(part))
    assert small.stat().st_size < plain.stat().st_size / 100
    with pytest.raises(AdapterError, match="small"):
        read_checkpoint(small)
    assert read_checkpoint(plain)[A].shape == (1000, 1000)


class _Asks:
    def __reduce__(self):
        return bytearray, (40_000_000_000,)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickle_that_asks_for_memory(tmp_path, as_zip):
    file = tmp_path / "odd.bin"
    _write_pickle(file, pickle.dumps(collections.OrderedDict(a=_Asks()), 2), as_zip)
    with pytest.raises(AdapterError, match=r"odd\.bin"):
        read_checkpoint(file)


def _write_pickle(file: Path, data: bytes, as_zip: bool) -> None:
    if not as_zip:
        file.write_bytes(data)
        return
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("archive/data.pkl", data)
        target.writestr("archive/version", "3\n")
        target.writestr("archive/byteorder", "little")


def test_what_is_ordinary_is_read(tmp_path):
    """Halves, doubles, views of larger storage, transposed and empty tensors, masks, positions."""
    held = {
        "half": torch.ones(2, 2, dtype=torch.float16),
        "double": torch.ones(2, dtype=torch.float64),
        "view": torch.arange(12.0)[2:8].reshape(2, 3),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(1.0),
        "mask": torch.ones(2, dtype=torch.bool),
        "positions": torch.arange(4),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "shared": torch.ones(1).expand(1, 1),
    }
    torch.save(held, tmp_path / "plain.bin")
    found = read_checkpoint(tmp_path / "plain.bin")
    assert all(
        torch.equal(found[name], value.to(found[name].dtype)) for name, value in held.items()
    )


def test_lora_of_whole_numbers_is_refused(tiny):
    from lorakit.adapters.loralib import state_of
    from lorakit.methods.reparam.lora import LoRA

    model = tiny("roberta")
    attachment = attach(LoRA(r=4, alpha=8, targets=("query",)), model)
    with pytest.raises(AdapterError, match="int64"):
        state_of(attachment, {A: torch.ones(4, 32, dtype=torch.int64), B: torch.ones(32, 4)})
