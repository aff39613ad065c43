"""The contract of a tracker: how a run of it is started, by accelerate's class for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

PROJECT = "lorakit"
"""Name of the project, unless the tracker's own environment variable gives one."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told about a seed.

    name: of the run folder and the seed. folder: of the seed. runs: the folder of all runs. values:
    the recipe, flat. step: after which training resumes; 0: it starts. id: what `Tracker.start`
    gave before the run was stopped.
    """

    name: str
    folder: Path
    runs: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    id: str | None = None


@dataclass(frozen=True)
class Started:
    """A tracker that takes values, and the id by which the run is continued later."""

    tracker: GeneralTracker
    id: str | None = None


@dataclass(frozen=True)
class Tracker:
    """A tracker.

    package: what is imported; extra: of lorakit, which installs it. start: may raise anything; it
    runs in the thread that all calls to the tracker are made in.
    """

    package: str
    extra: str
    start: Callable[[TrackedRun], Started]
