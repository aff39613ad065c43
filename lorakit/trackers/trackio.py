"""Trackio: a local database, in TRACKIO_DIR or the cache of Hugging Face. `trackio show` opens
it."""

from __future__ import annotations

from lorakit.trackers._base import PROJECT, Started, TrackedRun, Tracker


def start(run: TrackedRun) -> Started:
    from accelerate.tracking import TrackioTracker

    tracker = TrackioTracker(PROJECT, name=run.name, resume="allow")
    tracker.start()
    return Started(tracker, run.name)


PLUGIN = Tracker(package="trackio", extra="trackio", start=start)
