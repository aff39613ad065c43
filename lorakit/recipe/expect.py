"""The section `expect` of a recipe: the counts and the published scores that it should give."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lorakit.config import Config

SpreadKind = Literal["standard deviation", "confidence interval", "variance", "not stated"]
"""What a printed ± is. not stated: the source does not say it."""


class Published(Config):
    """A published number, with its spread as printed."""

    value: float
    spread: float | None = None
    kind: SpreadKind | None = None
    """What the spread is. null: `expect.kind`."""


class Expect(Config):
    """What this recipe should give. Counts are checked before the first step; scores are reported
    next to the measured ones."""

    sites: int | None = None
    """Number of weights that get a delta."""
    trainable: int | None = None
    """Number of parameters that the method trains. A newly initialised head is not counted."""
    scores: dict[str, Published] = Field(default_factory=dict)
    """Metric -> published value; `split/metric` where a task has several evaluation splits."""
    kind: SpreadKind | None = None
    """What the spread of each score is, where the source says it."""
    source: str | None = None
    """Where the numbers were published."""
    changed: tuple[str, ...] = Field(default=(), strict=False)
    """Keys of the recipe that have other values than where the numbers were published: nothing is
    compared. Overrides fill it in."""

    def with_kinds(self) -> dict[str, Published]:
        """The scores, each with what its spread is."""
        return {
            key: score.model_copy(update={"kind": score.kind or self.kind})
            for key, score in self.scores.items()
        }
