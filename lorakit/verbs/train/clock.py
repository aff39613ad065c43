"""The seconds of the stages of one seed, those before a stop included."""

from __future__ import annotations

import time
from collections.abc import Mapping


class StageClock:
    """Starts when it is made."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.earlier = 0.0
        self.stages: dict[str, float] = {}

    def resume(self, seconds: Mapping[str, float]) -> None:
        """Take over what `seconds` gave before a stop."""
        self.stages = {name: value for name, value in seconds.items() if name != "whole"}
        self.earlier = seconds.get("whole", 0.0)

    def stage_ended(self, name: str) -> None:
        """Its time is what has passed since the stage before it."""
        elapsed = time.perf_counter() - self.begin
        self.stages[name] = elapsed - sum(self.stages.values())

    def seconds(self) -> dict[str, float]:
        """Stage -> seconds; `whole` is everything since the seed was started for the first time."""
        return {**self.stages, "whole": self.earlier + time.perf_counter() - self.begin}
