"""Where a run stands: the step, the state to keep so far, the steps that went wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lorakit.methods import Attachment
from lorakit.recipe.schema import Evaluate
from lorakit.training.checkpoint import BadSteps, ClockState, KeptState, Saved, State
from lorakit.training.clock import Clock


class Kept:
    """The state to keep: that of the best score so far, the latest of equals, or the last."""

    def __init__(self, watched: tuple[str, str], cadence: Evaluate):
        self.watched, self.cadence = watched, cadence
        self.step, self.best, self.waited = 0, -math.inf, 0
        self.scores: Mapping[str, Mapping[str, float]] = {}
        self.state: dict[str, Tensor] = {}

    def offer(
        self, step: int, scores: Mapping[str, Mapping[str, float]], attachment: Attachment
    ) -> bool:
        """Take it if it is as good or better (or if the last is wanted); True when patience is at its end.

        A tie is no better score, so patience counts it; but of equals the one that was trained longer is kept.
        """
        split, metric = self.watched
        value = scores[split][metric]
        value = (
            -math.inf if math.isnan(value) else value
        )  # a correlation of constant predictions, say
        better = value > self.best or not self.state
        if better or value == self.best or self.cadence.keep == "last":
            self.step, self.scores, self.state = step, scores, attachment.state()
        self.best, self.waited = (value, 0) if better else (self.best, self.waited + 1)
        return self.cadence.patience is not None and self.waited >= self.cadence.patience


class Progress:
    """scored: the evaluation after this step, if there is one, was made; ended: nothing is left to train."""

    def __init__(self, kept: Kept, total: int):
        self.kept, self.total = kept, total
        self.step, self.scored, self.ended = 0, True, False
        self.clock, self.bad = Clock(), BadSteps()

    def as_state(
        self, processes: int, scaler: dict[str, Any] | None, about: dict[str, Any]
    ) -> State:
        kept = KeptState(
            step=self.kept.step,
            best=None if math.isinf(self.kept.best) else self.kept.best,
            waited=self.kept.waited,
            scores={split: dict(values) for split, values in self.kept.scores.items()},
        )
        clock = ClockState(
            training=self.clock.training, apart=self.clock.apart, tokens=self.clock.tokens
        )
        return State(
            step=self.step,
            total=self.total,
            scored=self.scored,
            ended=self.ended,
            kept=kept,
            clock=clock,
            bad=self.bad,
            scaler=scaler,
            processes=processes,
            about=about,
        )

    def take(self, saved: Saved) -> None:
        """Stand where a checkpoint stands."""
        state = saved.state
        self.step, self.scored, self.ended, self.bad = (
            state.step,
            state.scored,
            state.ended,
            state.bad,
        )
        self.clock = Clock(state.clock.training, state.clock.apart, state.clock.tokens)
        self.kept.step, self.kept.waited, self.kept.scores = (
            state.kept.step,
            state.kept.waited,
            state.kept.scores,
        )
        self.kept.best = -math.inf if state.kept.best is None else state.kept.best
        # it is written where it is another than what is trained on
        self.kept.state = (saved.best or dict(saved.trained)) if state.kept.scores else {}
