"""What a run has shown: scores of every seed beside the published number, checks, counts, and what it was made with."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError

from lorakit.config import Config
from lorakit.errors import DataError, InputError
from lorakit.recipe.schema import Published

# JSON has no NaN: a score that is not a number (a correlation of constants) is null in the file
Score = Annotated[
    float,
    Field(allow_inf_nan=True),
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: value if math.isfinite(value) else None, return_type=float | None, when_used="json"),
]
Scores = dict[str, dict[str, Score]]
"""split -> metric -> value"""


class Counts(Config):
    """Parameters, counted as the paper counts them."""

    sites: int
    """Weights that have a delta."""
    trainable: int
    """What the method trains."""
    fresh: int
    """What the checkpoint did not hold and is trained too (the head)."""
    total: int
    """All parameters of the base."""


class Check(Config):
    """One proof, and what it found."""

    name: str
    passed: bool
    value: Score | None = None
    tolerance: float | None = None
    note: str = ""


class SeedResult(Config):
    """One seed of a run."""

    seed: int
    scores: Scores
    base_scores: Scores
    """Of the model before training, on a slice of the split."""
    best_epoch: float | None = None
    epochs: float
    steps: int
    seconds: dict[str, float]
    checks: tuple[Check, ...] = Field(default=(), strict=False)
    delta_norms: dict[str, Score] = Field(default_factory=dict)
    """Site or parameter -> ||dW|| / ||W||."""


class Result(Config):
    """A finished run."""

    recipe: str
    task: str
    model: str
    model_revision: str | None = None
    method: dict[str, Any]
    primary: str
    splits: tuple[str, ...] = Field(strict=False)
    """The first one selects the best epoch."""
    counts: Counts
    seeds: tuple[SeedResult, ...] = Field(strict=False, min_length=1)
    published: dict[str, Published] = Field(default_factory=dict)
    """metric, or split/metric -> the number that was printed."""
    published_source: str | None = None
    recipe_values: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    started: str
    finished: str
    notes: tuple[str, ...] = Field(default=(), strict=False)

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(self.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise InputError(f"cannot write {path}: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path) -> Result:
        """DataError where the file is absent, damaged or no result."""
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        except (ValidationError, ValueError) as error:
            raise DataError(f"{path} is no result of lorakit, or damaged: {str(error).splitlines()[0]}") from None


@dataclass(frozen=True)
class Row:
    """One metric of one split over the seeds. std: of the sample (n - 1), None for one seed."""

    split: str
    metric: str
    values: tuple[float, ...]
    base_mean: float | None
    published: float | None
    published_spread: float | None

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def std(self) -> float | None:
        if len(self.values) < 2:
            return None
        return math.nan if any(map(math.isnan, self.values)) else statistics.stdev(self.values)

    @property
    def difference(self) -> float | None:
        """Ours minus the published number."""
        return None if self.published is None else self.mean - self.published

    @property
    def inside(self) -> bool | None:
        """Within the published spread; None where none was printed."""
        if self.difference is None or self.published_spread is None:
            return None
        return abs(self.difference) <= self.published_spread


def summary(result: Result) -> list[Row]:
    """A row per split and metric, in the order of the splits."""
    return list(_rows(result))


def _rows(result: Result) -> Iterator[Row]:
    for split in result.splits:
        for metric in result.seeds[0].scores.get(split, {}):
            values = tuple(seed.scores[split][metric] for seed in result.seeds)
            bases = [s.base_scores[split][metric] for s in result.seeds if metric in s.base_scores.get(split, {})]
            known = result.published.get(f"{split}/{metric}")
            if known is None and split == result.splits[0]:
                known = result.published.get(metric)
            yield Row(
                split, metric, values, statistics.fmean(bases) if bases else None,
                known.value if known else None, known.spread if known else None,
            )  # fmt: skip


def failed_checks(result: Result) -> list[tuple[int, Check]]:
    """(seed, check) of every proof that failed."""
    return [(seed.seed, check) for seed in result.seeds for check in seed.checks if not check.passed]
