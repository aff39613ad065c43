"""What freed tensors give back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import torch
from lorakit.nn.heap import map_large_blocks

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

if sys.argv[1] == "mapped":
    map_large_blocks()
kept = []
for length in range(40):
    blocks = [torch.ones(2**19 + 64 * length) for _ in range(4)]
    kept.append(torch.ones(2**10))
before = resident()
del blocks
print(before - resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="another C library than glibc",
)
def test_large_blocks_go_back_to_the_system():
    given = {}
    for way in ("mapped", "default"):
        found = subprocess.run(
            [sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True
        )
        given[way] = int(found.stdout)
    assert given["mapped"] >= 4 * 2**21
