"""The command line in a process of its own that begins within milliseconds, and can be killed at
any operation.

A server imports torch, transformers and lorakit once and forks: the child is what `python -m
lorakit` is after its imports, with a process number, signals and an exit code of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
EVENTS = {
    "os.rename": "rename",
    "os.remove": "remove",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
    "os.truncate": "truncate",
}
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.nightly.warm"])


@dataclass
class Done:
    """How a command ended. code: below zero, the signal."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Watched:
    """Every operation on the files below a folder, counted: at number `at` the process is killed
    before it is done.

    Without a number they are written down, a line for each, so that the next time one can be
    chosen."""

    def __init__(self, root: Path, at: int | None = None, notes: Path | None = None):
        self.root, self.at, self.notes, self.number = str(root), at, notes, 0
        self.handle: int | None = None

    def install(self) -> None:
        if self.notes is not None:
            self.handle = os.open(self.notes, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        sys.addaudithook(self._audit)
        sync = os.fsync

        def fsync(handle: int) -> None:
            self._count("fsync", os.readlink(f"/proc/self/fd/{handle}"))
            sync(handle)

        os.fsync = fsync

    def _audit(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(given[2], int) and given[2] & WRITES:
            self._count("open", given[0])
        elif event in EVENTS:
            self._count(EVENTS[event], given[0])

    def _count(self, what: str, path: Any) -> None:
        if not isinstance(path, (str, os.PathLike)):
            return
        name = os.fspath(path)
        if "/" in name and not name.startswith(
            self.root
        ):  # without a folder it is rmtree's, which has its handle
            return
        self.number += 1
        if self.handle is not None:
            os.write(self.handle, f"{what} {name}\n".encode())
        if self.number == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def jumping_clock(seconds: float, after: float) -> None:
    """The time of day is another from then on, as when a clock is set; the monotonic clock goes
    on."""
    real, begun = time.time, time.monotonic()
    time.time = lambda: real() + (seconds if time.monotonic() - begun > after else 0)


@dataclass
class Child:
    """`lorakit ...` in its own process. prepare: called in it before the command is."""

    arguments: Sequence[object]
    folder: Path
    prepare: Callable[[], None] | None = None
    environ: Mapping[str, str] = field(default_factory=dict)

    def begin(self) -> Child:
        self.folder.mkdir(parents=True, exist_ok=True)
        number = len(list(self.folder.glob(".said-*.err")))
        self.said = [self.folder / f".said-{number}.{end}" for end in ("out", "err")]
        for path in self.said:
            path.touch()
        line = [str(argument) for argument in self.arguments]
        given = (
            line,
            str(self.folder),
            [str(path) for path in self.said],
            self.prepare,
            dict(self.environ),
        )
        self.process = _CONTEXT.Process(target=_run, args=given)
        self.process.start()
        self.begun = time.monotonic()
        return self

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def send(self, number: int) -> bool:
        """False: it has ended already."""
        if not self.alive:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
            return True
        return False

    def wait_until(self, seconds: float) -> bool:
        """Whether it still runs so many seconds after it began."""
        self.process.join(max(0.0, self.begun + seconds - time.monotonic()))
        return self.alive

    def end(self, patience: float = 240) -> Done:
        self.process.join(patience)
        if self.alive:
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"{self.arguments} did not end within {patience} s")
        out, err = (path.read_text() for path in self.said)
        assert self.process.exitcode is not None
        return Done(self.process.exitcode, out, err)


def _run(
    line: list[str],
    folder: str,
    said: list[str],
    prepare: Callable[[], None] | None,
    environ: dict[str, str],
) -> None:
    for number, path in enumerate(said, 1):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(folder)
    os.environ.update(environ)
    sys.argv = ["lorakit", *line]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if prepare is not None:
        prepare()
    from lorakit.cli import main

    main()
