"""2,000 steps with the memory of the first few hundred."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tests.nightly.child import Child
from tests.nightly.plan import Tried, count

STEPS = 2000
MOST = 24.0
"""MiB by which memory may grow over the last three quarters: what a hundred steps' heaps differ
by."""


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def test_memory_is_flat(tmp_path: Path) -> None:
    """By the slope of a line through what the process held, so that one odd moment does not
    decide."""
    steps = max(100, count(STEPS))
    child = Child(
        [
            "train",
            "quickstart",
            "data.limit={train: 1000, validation: 16}",
            "train.global_batch_size=4",
            "train.epochs=1000",
            f"train.max_steps={steps}",
            "evaluate.every_steps=200",
            "train.checkpoint={every_steps: 100}",
            "--cpu",
            "--runs",
            "runs",
        ],
        tmp_path,
    ).begin()
    seen: list[tuple[int, float]] = []
    with Tried(f"memory over {steps} steps") as tried:
        while child.alive:
            time.sleep(0.05)
            log = next(tmp_path.glob("runs/*/seed0/metrics.jsonl"), None)
            if log is not None and child.alive:
                seen.append((log.read_bytes().count(b'"step"'), resident_mib(child.process.pid)))
        done = child.end()
        assert done.code == 0, done.err
        late = [(step, held) for step, held in seen if steps // 4 < step <= steps]
        slope = float(np.polyfit(*zip(*late, strict=True), 1)[0]) * steps * 0.75
        words = f"{slope:+.1f} MiB over {len(late)} looks, {late[0][1]:.0f} MiB at first"
        tried.outcome(words) if slope < MOST else tried.fault(f"it grows: {words}", "memory")
