"""TensorBoard: event files in the seed's folder. `tensorboard --logdir runs` shows all of them."""

from __future__ import annotations

from lorakit.trackers._base import Started, TrackedRun, Tracker


def start(run: TrackedRun) -> Started:
    from accelerate.tracking import TensorBoardTracker

    # what was logged after the step to resume from is trained, and logged, again
    purge = run.step + 1 if run.step else None
    tracker = TensorBoardTracker("tensorboard", str(run.folder), purge_step=purge)
    tracker.start()
    return Started(tracker)


PLUGIN = Tracker(package="tensorboard", extra="tensorboard", start=start)
