"""A task is one command with a log and a record of its last attempt; a launcher runs many, here or elsewhere."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from lorakit.config import Config
from lorakit.runs.result import write_whole
from lorakit.shell import join
from lorakit.studies.grid import Slurm

GRACE = 75.0
"""Seconds that a run has to write its checkpoint after SIGTERM: more than it gives processes of its own."""
STOPPED = {-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT}
"""Exit codes of a run that was told to stop: it did not fail, and goes on when it is started again."""
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Record(Config):
    """One attempt at a task, written by who runs it, when it starts and when it ends."""

    attempt: int
    host: str
    started: str
    ended: str | None = None
    code: int | None = None
    """Below zero: the signal that ended it."""
    error: str = ""
    """What it said last."""


@dataclass(frozen=True)
class Task:
    """A command, and the stem of its files: STEM.log, STEM.json (the record), STEM.job (its place in a queue)."""

    command: tuple[str, ...]
    stem: Path

    @property
    def log(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.log")

    @property
    def job(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.job")

    def record(self) -> Record | None:
        """Of the last attempt, if there was one."""
        try:
            return Record.model_validate_json(self._record.read_bytes())
        except (OSError, ValidationError):
            return None

    @property
    def _record(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.json")

    def start(self, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Begin an attempt, in a session of its own: a Ctrl-C in this terminal does not reach it."""
        before = self.record()
        record = Record(
            attempt=1 + (before.attempt if before else 0), host=socket.gethostname(), started=_now()
        )
        write_whole(self._record, record.model_dump_json() + "\n")
        with self.log.open("ab") as log:
            log.write(f"--- attempt {record.attempt}, {record.started}, {record.host}\n".encode())
            log.write(f"$ {join(self.command)}\n".encode())
            log.flush()
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=_in_the_child,
            )

    def end(self, code: int) -> Record:
        """Write down how the attempt ended."""
        record = self.record()
        assert record is not None
        error = "" if code == 0 else last_words(self.log, code)
        record = record.model_copy(update={"ended": _now(), "code": code, "error": error})
        write_whole(self._record, record.model_dump_json() + "\n")
        return record


class Launcher(Protocol):
    """One file of this folder. It holds no state: what it needs is in the files of the tasks."""

    def launch(
        self,
        tasks: Sequence[Task],
        name: str,
        at_once: int | None,
        slurm: Slurm,
        changed: Callable[[], None],
    ) -> None:
        """Run the tasks, at most `at_once` at a time; one that fails ends no other. changed: after each start and end.

        Returns when all have ended, or where there is a queue, when all are in it.

        InputError: this machine has not what it takes.
        """
        ...

    def alive(self, tasks: Sequence[Task]) -> dict[Task, str]:
        """Those that still run ("running") or are to ("waiting: why")."""
        ...


def stop(processes: Sequence[subprocess.Popen[bytes]], grace: float = GRACE) -> None:
    """SIGTERM to all, so that they write their checkpoints, and SIGKILL to who is still there after `grace` seconds."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        left = [process for process in processes if process.poll() is None]
        for process in left:
            tell(process.pid, number)
        until = time.monotonic() + seconds
        for process in left:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))


def tell(pid: int, number: int) -> None:
    """SIGTERM goes to the run, which passes it on once to those that it started; SIGKILL to its whole group."""
    with suppress(ProcessLookupError):
        (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)


def last_words(log: Path, code: int) -> str:
    """Why the last attempt ended: its last `error: ...`, else the signal that ended it, else its last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        text = ""
    lines = [
        line.strip() for line in text.rpartition("--- attempt ")[2].splitlines()[2:] if line.strip()
    ]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    killed = (
        ["told to stop"]
        if code in STOPPED
        else [f"killed by {signal.Signals(-code).name}"]
        if code < 0
        else []
    )
    return (errors[-1:] or killed or lines[-1:] or [f"exit code {code}"])[0][:500]


def _in_the_child() -> None:
    # Slurm sends USR2 to every process of a job to say that time is up; it is for the one that watches the run
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Told in a child before it begins: it gets SIGTERM when its parent ends, even one that is killed. Linux only."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
