"""Benchmarks: the speed and memory of lorakit, compared with the limit and with other libraries.

An absolute time says little on a shared machine, so ratios are reported. Each round times every
variant once, in an order that rotates; a result is the median of the rounds' ratios, with its
quartiles. On a CPU, time is processor time. The scripts of other libraries are in the folder
`benchmarks` of a checkout.
"""

from lorakit.bench._base import Bench, Measured, Setting
from lorakit.registry import Registry

benches: Registry[Bench] = Registry("lorakit.bench", "benchmark")

__all__ = ["Bench", "Measured", "Setting", "benches"]
