"""The result of a study: the state of each run, and its scores over the seeds."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from lorakit.config import Config, first_problem
from lorakit.errors import DataError
from lorakit.runs.result import Scores

State = Literal["done", "running", "failed", "stopped", "waiting"]
"""stopped: it resumes from its checkpoint when the study is started again."""
STATES: tuple[State, ...] = ("done", "running", "failed", "stopped", "waiting")


class CellResult(Config):
    """One run of a study."""

    label: str
    recipe: str
    overrides: tuple[str, ...] = Field(strict=False)
    point: dict[str, Any]
    """Axis -> value of this run."""
    run: str
    """Its run folder."""
    log: str | None
    state: State
    note: str = ""
    """Why it failed, or what it waits for."""
    attempts: int = 0
    metric: tuple[str, str] = Field(strict=False)
    """(split, metric) of its primary score."""
    seeds: tuple[int, ...] = Field(strict=False)
    scores: dict[int, Scores] = Field(default_factory=dict)
    """Seed -> its scores, for each finished seed."""
    seconds: float = 0.0
    """The time that those seeds took."""
    trainable: int | None = None
    """Trainable parameters; null until a run is complete."""

    def values(self, split: str, metric: str) -> list[float]:
        """The finite scores of the finished seeds, in their order."""
        finished = [self.scores[seed] for seed in self.seeds if seed in self.scores]
        values = [scores.get(split, {}).get(metric, math.nan) for scores in finished]
        return [value for value in values if math.isfinite(value)]


class StudyResult(Config):
    """All runs of a study in their present state."""

    name: str
    file: str
    about: str = ""
    axes: tuple[str, ...] = Field(strict=False)
    cells: tuple[CellResult, ...] = Field(strict=False)

    def counts(self) -> dict[str, int]:
        """State -> number of runs, without states that no run is in."""
        counted = Counter(cell.state for cell in self.cells)
        return {state: counted[state] for state in STATES if counted[state]}

    @classmethod
    def read(cls, path: Path) -> StudyResult:
        """DataError: the file is missing or damaged."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        except ValidationError as error:
            raise DataError(
                f"{path} is damaged, or is not a study of lorakit: {first_problem(error)}"
            ) from None
