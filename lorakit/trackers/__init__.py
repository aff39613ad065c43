"""Trackers: programs that show runs, one file each (`track` in a recipe).

The record of a run is its own files: metrics.jsonl is written first, and a tracker that fails or
hangs never ends a run.
"""

from __future__ import annotations

from lorakit.registry import Registry
from lorakit.trackers._base import TrackedRun, Tracker

trackers: Registry[Tracker] = Registry("lorakit.trackers", "tracker")

__all__ = ["TrackedRun", "Tracker", "trackers"]
