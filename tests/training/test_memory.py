"""What a training process gives back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch

from lorakit.training.memory import GiveBack, peak_mib, resident

CPU = torch.device("cpu")

glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="another C library than glibc",
)


@glibc
def test_gaps_in_the_heap_are_given_back():
    """200 MiB in blocks that are too small to be mapped alone, of which every hundredth stays."""
    give_back = GiveBack(CPU, least=2**20)
    give_back()
    blocks = [torch.ones(2**14) for _ in range(3200)]
    held = resident()
    kept = blocks[::100]
    del blocks
    give_back.floor = min(give_back.floor, held // 3)
    give_back()
    assert resident() < held - 100 * 2**20
    assert all(bool((block == 1).all()) for block in kept)


@glibc
def test_it_is_asked_only_where_memory_has_doubled():
    asked = []
    give_back = GiveBack(CPU)
    give_back.trim = asked.append
    give_back.floor = resident()
    give_back()
    assert not asked
    give_back.floor, give_back.least = resident() // 3, 2**20
    give_back()
    assert asked == [0]
    give_back()
    assert asked == [0], "the last time is what it is measured by"


def test_elsewhere_it_does_nothing():
    give_back = GiveBack(torch.device("meta"), least=0)
    assert give_back.trim is None
    give_back()


def test_the_peak_is_in_mib():
    assert 50 < peak_mib(CPU) < 2**20


def test_the_peak_of_a_run_on_the_cpu_is_that_of_the_process(monkeypatch):
    """Also where there is a GPU that the run does not use."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    assert peak_mib(CPU) > 50


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is that of getrusage")
def test_the_peak_is_not_that_of_the_process_that_started_it():
    """`ru_maxrss` is passed on over exec."""
    large = bytearray(2**29)
    large[:: 2**12] = b"\1" * (2**17)
    code = "from lorakit.training.memory import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) < len(large)
