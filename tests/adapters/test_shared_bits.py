"""Adapters that share a mean: the paper's formulas by hand, and files that do not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lorakit.adapters.attach import attach_adapter
from lorakit.adapters.bits import BITS_FILE, pack, unpack, unpacked
from lorakit.adapters.files import read_adapter
from lorakit.adapters.save import save_adapter, store_together
from lorakit.adapters.shared_bits import MEAN_FILE, Member, pack_together, with_mean
from lorakit.errors import AdapterError
from tests.attaching import attach
from tests.conftest import small_method


def members(*tensors):
    return [Member({"A": tensor}, frozenset()) for tensor in tensors]


def given_back(found, number):
    alone = unpack(found.adapters[number].tensors, found.adapters[number].text, "file")
    return with_mean(alone, found.text, found.mean.tensors, "mean").tensors["A"]


def test_two_bits_by_hand(monkeypatch):
    """The mean -1, 0.4, 0.6, 2 has the codes 0, 1, 2, 3 and is stored as -1, 0, 1, 2.

    The rest 0, 0, -0.4, 0 has steps of 0.4 / 3 and the codes 3, 3, 0, 3; the other rest, 0, 0.8,
    -0.4, 0, has steps of 0.4 and the codes 1, 3, 0, 1. Both are given back exactly.
    """
    monkeypatch.setattr("lorakit.adapters.bits.SHORTEST", 1)
    first = torch.tensor([-1.0, 0.0, 0.6, 2.0])
    second = torch.tensor([-1.0, 0.8, 0.6, 2.0])
    found = pack_together(members(first, second), 2, 2, {})
    assert unpacked(found.mean.tensors["A"], 2, 4).tolist() == [0, 1, 2, 3]
    codes = [unpacked(one.tensors["A"], 2, 4).tolist() for one in found.adapters]
    assert codes == [[3, 3, 0, 3], [1, 3, 0, 1]]
    for number, wanted in enumerate((first, second)):
        assert torch.allclose(given_back(found, number), wanted, atol=1e-6)
    assert pack({"A": first}, 2, frozenset(), {}).largest_error == pytest.approx(0.4)


def quantized_as_in_the_paper(x: np.ndarray, bits: int) -> np.ndarray:
    """Delta = (max - min) / (2^b - 1), with the zero point at the smallest number."""
    delta = (x.max() - x.min()) / (2**bits - 1)
    return np.rint((x - x.min()) / delta) * delta + x.min()


@pytest.mark.parametrize("bits", [(2, 3), (2, 8), (4, 4)])
def test_the_formulas_of_the_paper(bits):
    """theta_ec = Q(theta_avg - theta_pre) + theta_pre; tau_t = Q(theta_t - theta_ec) + Q(base)."""
    own, of_mean = bits
    generator = torch.Generator().manual_seed(own)
    pre = torch.randn(20, 10, generator=generator)
    tuned = [pre + 0.1 * torch.randn(20, 10, generator=generator) for _ in range(3)]
    found = pack_together(members(*tuned), own, of_mean, {"A": pre})
    thetas = [theta.double().numpy() for theta in tuned]
    theta_pre = pre.double().numpy()
    base = quantized_as_in_the_paper(np.mean(thetas, 0) - theta_pre, of_mean)
    for number, theta in enumerate(thetas):
        offset = quantized_as_in_the_paper(theta - (base + theta_pre), own)
        assert np.allclose(given_back(found, number).numpy(), base + offset, atol=1e-6)
        packed = found.adapters[number]
        assert packed.largest_error == pytest.approx(
            np.abs(base + offset - (theta - theta_pre)).max(), abs=1e-6
        )
        assert packed.largest_error <= packed.bound


def test_a_common_start_makes_the_errors_smaller():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(40, 40, generator=generator)
    near = [start + 0.02 * torch.randn(40, 40, generator=generator) for _ in range(4)]
    apart = [torch.randn(40, 40, generator=generator) for _ in range(4)]
    alone = pack({"A": near[0]}, 2, frozenset(), {}).relative_error
    together = pack_together(members(*near), 2, 4, {}).adapters[0].relative_error
    assert together < alone / 5
    alone = pack({"A": apart[0]}, 2, frozenset(), {}).relative_error
    assert pack_together(members(*apart), 2, 4, {}).adapters[0].relative_error > alone / 2


def test_what_not_all_have_is_stored_alone():
    both, one = torch.randn(8, 10), torch.randn(8, 9)
    found = pack_together(
        [
            Member({"A": both, "B": one, "head": both}, frozenset({"head"})),
            Member({"A": both + 1, "B": one.T.contiguous(), "head": both}, frozenset({"head"})),
        ],
        4,
        4,
        {},
    )
    assert json.loads(found.text)["tensors"] == ["A"]
    first = unpack(found.adapters[0].tensors, found.adapters[0].text, "file")
    again = with_mean(first, found.text, found.mean.tensors, "mean").tensors
    assert (again["B"] - one).abs().max() <= found.adapters[0].bound
    assert torch.equal(again["head"], both)
    with pytest.raises(AdapterError, match="no tensor"):
        pack_together(members(both, one), 4, 4, {})


@pytest.fixture
def saved(tiny, about, tmp_path):
    """Two adapters in one folder, their mean, and their logits."""

    def make(name):
        logits, folders = [], []
        for number in range(2):
            model = tiny("bert")
            attachment = attach(small_method(name), model)
            card = about(model, attachment)
            model.step(attachment, rate=0.01 * (number + 1), steps=2)
            logits.append(model.logits())
            folders.append(tmp_path / "zoo" / f"adapter{number}")
            save_adapter(folders[-1], attachment, card)
            attachment.detach()
        named = dict(model.model.named_parameters())
        fresh = attachment.newly_initialised
        base = {n: p.detach() for n, p in named.items() if n not in fresh}
        return folders, logits, store_together(folders, (8, 8), base)

    return make


@pytest.mark.parametrize("name", ["lora", "full", "adapter_h"])
def test_read_back_by_the_same_functions(saved, tiny, name):
    folders, logits, _ = saved(name)
    assert (folders[0].parent / MEAN_FILE).is_file()
    for folder, wanted in zip(folders, logits, strict=True):
        file = read_adapter(folder)
        assert file.mean == folders[0].parent / MEAN_FILE
        other = tiny("bert")
        before = other.logits()
        attach_adapter(file, other.model, other.roles, other.newly_initialised)
        error = (other.logits() - wanted).abs().max()
        assert 0 <= error < 0.05 * (before - wanted).abs().max()


def test_a_folder_without_its_mean(saved, monkeypatch):
    folders, _, _ = saved("lora")
    monkeypatch.chdir(folders[0])
    assert read_adapter(folders[0].relative_to(folders[0])).mean is not None
    mean = folders[0].parent / MEAN_FILE
    content = bytearray(mean.read_bytes())
    content[-3] ^= 1
    mean.write_bytes(bytes(content))
    with pytest.raises(AdapterError, match="is not the mean"):
        read_adapter(folders[0])
    mean.unlink()
    with pytest.raises(AdapterError, match=MEAN_FILE):
        read_adapter(folders[1])
    assert (folders[1] / BITS_FILE).is_file()


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("digest"),
        lambda about: about.update(tensors=["A", "B"]),
        lambda about: about.update(ranges="{}"),
    ],
)
def test_headers_that_do_not_fit(change):
    found = pack_together(members(torch.randn(8, 10), torch.randn(8, 10)), 4, 4, {})
    alone = unpack(found.adapters[0].tensors, found.adapters[0].text, "file")
    about = json.loads(found.text)
    change(about)
    with pytest.raises(AdapterError):
        with_mean(alone, json.dumps(about), found.mean.tensors, "mean")
