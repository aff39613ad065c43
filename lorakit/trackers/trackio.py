"""Trackio: a local database, in TRACKIO_DIR or the cache of Hugging Face. `trackio show` opens
it."""

from __future__ import annotations

from typing import Any

from lorakit.trackers._base import PROJECT, Started, TrackedRun, Tracker


def start(run: TrackedRun) -> Started:
    from accelerate.tracking import TrackioTracker

    # of a training that starts over, trackio gives a run of that name another one
    resume = "allow" if run.id else "never"
    tracker: Any = TrackioTracker(PROJECT, name=run.id or run.name, resume=resume)
    tracker.start()
    return Started(tracker, tracker.run.name)


PLUGIN = Tracker(package="trackio", extra="trackio", start=start)
