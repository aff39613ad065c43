"""What a run has shown: scores of every seed beside the published number, checks, counts, and what it was made with."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError

from lorakit.config import Config, first_problem
from lorakit.disk import sync
from lorakit.errors import DataError, InputError
from lorakit.notes import Note
from lorakit.recipe.schema import Published

# JSON has no NaN: a score that is not a number (a correlation of constants) is null in the file
Score = Annotated[
    float,
    Field(allow_inf_nan=True),
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(
        lambda value: value if math.isfinite(value) else None,
        return_type=float | None,
        when_used="json",
    ),
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
    planned_steps: int | None = None
    """What the recipe asks for; more than `steps` where evaluate.patience ended the seed."""
    skipped_steps: int = 0
    """Left out, for their loss or gradient was not finite."""
    seconds: dict[str, float]
    checks: tuple[Check, ...] = Field(default=(), strict=False)
    delta_norms: dict[str, Score] = Field(default_factory=dict)
    """Site or parameter -> ||dW|| / ||W||."""
    files: dict[str, str] = Field(default_factory=dict)
    """Path within the seed's folder -> digest of the file; empty in results of versions up to 0.1.0."""

    @property
    def not_trained(self) -> int:
        """Steps that the recipe asks for and that an early stop left out."""
        return 0 if self.planned_steps is None else max(0, self.planned_steps - self.steps)

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all. InputError: no permission, disk full."""
        write_whole(path, self.model_dump_json(indent=2) + "\n")


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
    comparable: bool = True
    """False where the recipe was changed in a way that the published numbers do not cover."""
    recipe_values: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    started: str
    finished: str
    notes: tuple[Note, ...] = Field(default=(), strict=False)

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all. InputError: no permission, disk full."""
        write_whole(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """DataError where the file is absent, damaged or no result."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        except ValidationError as error:
            raise DataError(
                f"{path} is no result of lorakit, or damaged: {first_problem(error)}. "
                "Train its recipe again with --restart"
            ) from None


def write_whole(path: Path, text: str) -> None:
    """The file is there with all of `text`, or it is what it was before. InputError: no permission, disk full."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InputError(f"cannot write {path}: {error.strerror}") from error


@dataclass(frozen=True)
class Row:
    """One metric of one split over the seeds, in their order. A seed without it counts as NaN, and so does the mean."""

    split: str
    metric: str
    values: tuple[float, ...]
    base_mean: float | None
    published: float | None
    published_spread: float | None
    comparable: bool = True

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def median(self) -> float:
        return math.nan if math.isnan(self.mean) else statistics.median(self.values)

    @property
    def std(self) -> float | None:
        """Of the sample (n - 1); None for one seed."""
        if len(self.values) < 2:
            return None
        return math.nan if math.isnan(self.mean) else statistics.stdev(self.values)

    @property
    def difference(self) -> float | None:
        """Ours minus the published number."""
        return None if self.published is None else self.mean - self.published

    @property
    def inside(self) -> bool | None:
        """Within the published spread, its ends included; None where none was printed, or it is of another setting."""
        if self.difference is None or self.published_spread is None or not self.comparable:
            return None
        # 88.5 is 89.2 - 0.7, though not in binary fractions
        return (
            None
            if math.isnan(self.difference)
            else abs(self.difference) <= self.published_spread + 1e-9
        )


def summary(result: Result) -> list[Row]:
    """A row per split and metric, in the order of the splits."""
    return list(_rows(result))


def _rows(result: Result) -> Iterator[Row]:
    published = _published(result)
    for split in result.splits:
        of = [seed.scores.get(split, {}) for seed in result.seeds]
        before = [seed.base_scores.get(split, {}) for seed in result.seeds]
        # what was published and not measured is shown as missing, not left out
        for metric in dict.fromkeys(
            [*(m for scores in of for m in scores), *(m for s, m in published if s == split)]
        ):
            bases = [scores[metric] for scores in before if metric in scores]
            known = published.get((split, metric))
            yield Row(
                split,
                metric,
                tuple(scores.get(metric, math.nan) for scores in of),
                statistics.fmean(bases) if bases else None,
                known.value if known else None,
                known.spread if known else None,
                result.comparable,
            )


def _published(result: Result) -> dict[tuple[str, str], Published]:
    """(split, metric) -> number. A bare metric is of the first split; `split/metric` says it, and wins."""
    parts = [(key.rpartition("/"), value) for key, value in result.published.items()]
    bare = {(result.splits[0], metric): value for (split, _, metric), value in parts if not split}
    return bare | {(split, metric): value for (split, _, metric), value in parts if split}


def failed_checks(result: Result) -> list[tuple[int, Check]]:
    """(seed, check) of every proof that failed."""
    return [
        (seed.seed, check) for seed in result.seeds for check in seed.checks if not check.passed
    ]
