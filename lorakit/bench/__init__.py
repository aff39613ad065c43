"""Benchmarks: ratios of time and memory to a limit and to peers, measured in turns.

An absolute time says little on a shared machine. Each round times every way once, in an order that rotates, and what is
reported is the median over the rounds of a round's ratio, with its quartiles. On a CPU it is processor time.
"""

from lorakit.bench._base import Bench, Measured, Setting
from lorakit.registry import Registry

benches: Registry[Bench] = Registry("lorakit.bench", "benchmark")

__all__ = ["Bench", "Measured", "Setting", "benches"]
