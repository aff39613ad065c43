"""The peak memory of a training process."""

from __future__ import annotations

from lorakit.training.memory import peak_mib


def test_the_peak_is_in_mib():
    assert 50 < peak_mib() < 2**20
