"""Rounds of measurements, and the ratios within them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Ratio:
    """The time of one variant over another's: the median of the rounds' ratios, with quartiles."""

    of: str
    over: str
    median: float
    low: float
    high: float
    rounds: int

    def named(self, part: str) -> Ratio:
        """The same ratio under the name of a part, such as `merge: lorakit`."""
        return replace(self, of=f"{part}: {self.of}")

    def plain(self) -> dict[str, Any]:
        rounded = {name: round(getattr(self, name), 3) for name in ("median", "low", "high")}
        return {"of": self.of, "over": self.over, **rounded, "rounds": self.rounds}


@dataclass(frozen=True)
class Rounds:
    """variant -> seconds, one value per round."""

    seconds: Mapping[str, list[float]]

    def ratio(self, of: str, over: str) -> Ratio:
        ratios = [a / b for a, b in zip(self.seconds[of], self.seconds[over], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return Ratio(of, over, median, low, high, len(ratios))


def measure(
    ways: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device | str = "cpu",
    prepare: bool = False,
) -> Rounds:
    """Time every variant once per round, in an order that rotates.

    The first round warms up and is not counted. Seconds are processor time; on a GPU, wall time.
    prepare: a variant returns the call that is timed; making and freeing it are not timed.
    """
    # on a shared CPU, wall time also counts the work of others
    clock = _gpu_clock if torch.device(device).type == "cuda" else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number, name in turns(list(ways), rounds + 1):
        call = ways[name]() if prepare else ways[name]
        begin = clock()
        result = call()
        took = clock() - begin
        # freeing a model must not be timed as part of the next variant
        del call, result
        if number:
            seconds[name].append(took)
    return Rounds(seconds)


def turns(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """(number of the round, name): every name once per round, in an order that rotates."""
    for number in range(rounds):
        # so that no variant always runs on the warm cache of the same other
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            yield number, name


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def saved_bytes(step: Callable[[], torch.Tensor], model: torch.nn.Module) -> int:
    """Bytes that the forward pass of `step` keeps for its backward pass.

    Parameters and buffers of the model are left out. Each storage counts once, with all its bytes.
    """
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step()
    del loss
    return sum(kept.values())
