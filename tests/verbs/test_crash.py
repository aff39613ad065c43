"""Killed without a warning, again and again, a run ends in the bits of one that nobody
disturbed."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

KILLS, STEPS = 30, 72
RECIPE = [
    "quickstart",
    "data.limit={train: 96, validation: 32}",
    "train.global_batch_size=8",
    "train.micro_batch_size=4",
    "train.epochs=6",
    "method.dropout=0.1",
    "evaluate.every_steps=11",
    "train.checkpoint={every_steps: 1, keep_last: 2}",
]


@dataclass
class Told:
    """What happened to one run."""

    folder: Path
    kills: int = 0
    in_a_write: int = 0
    resumed: list[int] = field(default_factory=list)


def _begin(runs: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lorakit", "train", *RECIPE, "--cpu", "--runs", str(runs)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _end(process: subprocess.Popen[str], told: Told) -> None:
    _, said = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), said
    assert "Traceback" not in said
    assert "is damaged" not in said  # a rename came after everything was there
    told.resumed += [
        int(line.split()[3]) for line in said.splitlines() if line.startswith("resumes from step")
    ]


def seed_of(runs: Path) -> Path | None:
    return next(runs.glob("*/seed0"), None)


def _lines(runs: Path, since: float) -> int:
    """Of metrics.jsonl, once the process that began at `since` has written to it."""
    folder = seed_of(runs)
    file = folder / "metrics.jsonl" if folder else None
    if file is None or not file.is_file() or file.stat().st_mtime < since:
        return 0
    return file.read_bytes().count(b"\n")


def _await(process: subprocess.Popen[str], there: Callable[[], object]) -> None:
    patience = time.monotonic() + 120
    while process.poll() is None and not there() and time.monotonic() < patience:
        time.sleep(0.002)


def _kill_at_some_moment(process: subprocess.Popen[str], runs: Path, rng: random.Random) -> bool:
    """After a few steps, or when all are trained, or at any moment; False: it had ended before."""
    since, kind = time.time(), rng.random()
    if kind < 0.75:
        _await(process, lambda: _lines(runs, since))
        begun, more = _lines(runs, since), rng.randrange(7)
        _await(process, lambda: _lines(runs, since) >= begun + more)
        time.sleep(rng.uniform(0, 0.08))
    elif kind < 0.9:
        _await(process, lambda: list(runs.glob(f"*/seed0/checkpoints/step-{STEPS:06}")))
        time.sleep(rng.uniform(0, 0.6))
    else:
        time.sleep(rng.uniform(0, 12))
    if process.poll() is not None:
        return False
    process.kill()
    return True


def _disturbed(runs: Path, rng: random.Random, most: int) -> Told:
    """Killed up to `most` times, and then left in peace; it may reach its end before."""
    told = Told(runs)
    while told.kills < most:
        process = _begin(runs)
        landed = _kill_at_some_moment(process, runs, rng)
        _end(process, told)
        if not landed:
            return told
        told.kills += 1
        told.in_a_write += bool(list(runs.glob("*/seed0/checkpoints/.*")))
    _end(_begin(runs), told)
    return told


def whole(runs: Path) -> dict[str, object]:
    """What a run gave, but for its times."""
    folder = seed_of(runs)
    assert folder is not None
    result = json.loads((folder / "result.json").read_text())
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "tokens_per_second", "memory_mib")
    files = [*sorted(folder.glob("predictions/*")), *sorted(folder.glob("adapter/*"))]
    return {
        "files": {
            str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files
        },
        "result": {
            key: value for key, value in result.items() if key not in ("seconds", "files", "digest")
        },
        "events": [
            {k: v for k, v in e.items() if k not in timed}
            for e in events
            if e["event"] not in ("start", "resumed")
        ],
        "left over": sorted(p.name for p in folder.rglob(".*"))
        + [p.name for p in folder.glob("checkpoints")],
    }


@pytest.mark.nightly
def test_thirty_kills_change_no_bit(tmp_path):
    rng = random.Random(6)
    straight = Told(tmp_path / "straight")
    _end(_begin(straight.folder), straight)
    wanted = whole(straight.folder)
    assert len([e for e in wanted["events"] if e["event"] == "step"]) == STEPS
    rounds: list[Told] = []
    while (left := KILLS - sum(told.kills for told in rounds)) > 0:
        told = _disturbed(tmp_path / f"round{len(rounds)}", rng, left)
        print(
            f"round {len(rounds)}: {told.kills} kills, {told.in_a_write} in a write, resumed at "
            f"{told.resumed}",
            flush=True,
        )
        rounds.append(told)
        assert whole(told.folder) == wanted
    print(
        f"equal: {len(rounds)} disturbed run(s), {sum(t.kills for t in rounds)} kills, "
        f"{wanted['files']}"
    )
    assert sum(len(told.resumed) for told in rounds) >= 10
