"""Rounds of measurements, and the ratios within them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Ratio:
    """One way over another: the median over the rounds of each round's ratio, with its quartiles."""

    of: str
    over: str
    median: float
    low: float
    high: float
    rounds: int

    def named(self, part: str) -> Ratio:
        """The same, of a part of what was measured."""
        return replace(self, of=f"{part}: {self.of}")

    def plain(self) -> dict[str, Any]:
        rounded = {name: round(getattr(self, name), 3) for name in ("median", "low", "high")}
        return {"of": self.of, "over": self.over, **rounded, "rounds": self.rounds}


@dataclass(frozen=True)
class Rounds:
    """seconds of each way, a value per round."""

    seconds: Mapping[str, list[float]]

    def ratio(self, of: str, over: str) -> Ratio:
        ratios = [a / b for a, b in zip(self.seconds[of], self.seconds[over], strict=True)]
        low, median, high = (
            statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        )
        return Ratio(of, over, median, low, high, len(ratios))


def measure(
    ways: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device | str = "cpu",
    anew: bool = False,
) -> Rounds:
    """Every way once per round, nobody always first; a round before them warms up and is not counted.

    anew: a way gives what is timed, made for this one time; making and freeing it are not timed.
    """
    clock = _gpu_clock if torch.device(device).type == "cuda" else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            call = ways[name]() if anew else ways[name]
            begin = clock()
            result = call()
            took = clock() - begin
            del call, result
            if number:
                seconds[name].append(took)
    return Rounds(seconds)


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def saved_bytes(step: Callable[[], torch.Tensor], model: torch.nn.Module) -> int:
    """Bytes that a forward pass keeps for its backward pass, parameters and buffers of the model left out; each storage
    counts once, as far as it is used whole."""
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
