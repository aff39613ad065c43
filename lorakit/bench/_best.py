"""A peer at its best: the fastest of the settings that its documentation has, chosen by a short
measurement.

On a CPU in bf16 eager attention is faster than SDPA for short texts, and adapters in the base's
dtype (`autocast_adapter_dtype=False`) save two casts of the activations in each adapted layer. Two
keyword arguments give both, so a user who measures has them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lorakit.bench._rounds import measure

ATTENTIONS = ("eager", "sdpa")
"""Names of transformers' attention functions (its page "Attention backends")."""
ADAPTERS = {"adapters in fp32": True, "adapters as the base": False}
"""What is said -> PEFT's `autocast_adapter_dtype` (its page "LoRA")."""
ROUNDS = 3
"""Enough to choose: the settings differ by a tenth and more, or not at all."""
BEST = "_best"
"""End of the name of a peer at its best."""


@dataclass(frozen=True)
class Best:
    """The fastest setting of one peer."""

    name: str
    """As `peft_best`."""
    setting: str
    """As `eager, adapters as the base`."""
    tried: Mapping[str, float]
    """setting -> median seconds of the rounds that chose."""

    @property
    def note(self) -> str:
        others = [
            f"{setting} {seconds / self.tried[self.setting]:.2f}"
            for setting, seconds in self.tried.items()
            if setting != self.setting
        ]
        over = f" (over it: {'; '.join(others)})" if others else ""
        return f"{self.name}: {self.setting}{over}"

    def plain(self) -> dict[str, Any]:
        tried = {setting: round(seconds, 5) for setting, seconds in self.tried.items()}
        return {"setting": self.setting, "tried": tried}


def choose(
    name: str,
    ways: Mapping[str, Callable[[], Any]],
    device: torch.device | str = "cpu",
    prepare: bool = False,
) -> Best:
    """The fastest of several settings of one peer. ways: setting -> the call that is timed."""
    if len(ways) == 1:
        return Best(name, next(iter(ways)), dict.fromkeys(ways, 1.0))
    rounds = measure(ways, ROUNDS, device, prepare)
    return fastest(name, rounds.seconds)


def fastest(name: str, seconds: Mapping[str, Sequence[float]]) -> Best:
    """The same from measurements that were made already."""
    tried = {setting: statistics.median(each) for setting, each in seconds.items()}
    return Best(name, min(tried, key=lambda setting: tried[setting]), tried)


def settings(has_adapters: bool, is_half: bool) -> Iterator[tuple[str, str, bool]]:
    """(what is said, attention, autocast_adapter_dtype) of every setting.

    is_half: the base is in half precision; otherwise the adapters are in its dtype anyway.
    """
    for attention in ATTENTIONS:
        if not has_adapters or not is_half:
            yield attention, attention, True
            continue
        for said, autocast in ADAPTERS.items():
            yield f"{attention}, {said}", attention, autocast


def with_attention(model: Any, attention: str) -> Any:
    """The model with one of transformers' attention functions."""
    model.set_attn_implementation(attention)
    return model
