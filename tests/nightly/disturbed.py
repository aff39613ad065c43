"""A command that is killed, stopped or held, and given again until it ends, and the same command
undisturbed."""

from __future__ import annotations

import hashlib
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.nightly.child import Child, Done, Watched
from tests.nightly.plan import Tried

LEAST = 240.0
"""Seconds of patience: a machine that does other work too may take as long."""


@dataclass
class Command:
    """A command that works in one folder. left: what it made there, to compare; None where that is
    not whole.

    said: what it says only of a whole result. again: the exit codes of a command that finds its
    result there."""

    line: Callable[[Path], list[object]]
    left: Callable[[Path], Any]
    said: str
    again: tuple[int, ...] = (0,)
    environ: Callable[[Path], Mapping[str, str]] = lambda folder: {}
    wanted: Any = None
    seconds: float = 0.0
    operations: list[str] = field(default_factory=list)

    def begin(self, folder: Path, prepare: Callable[[], None] | None = None) -> Child:
        return Child(self.line(folder), folder, prepare, self.environ(folder)).begin()

    def claims(self, done: Done) -> bool:
        """Whether it said that its result is whole; a study ends with 1 where a run of it failed,
        and its table says so."""
        return done.code != 1 and self.said in done.out + done.err

    def learn(self, folder: Path) -> None:
        """Two undisturbed runs: what they give, how long that takes, and which operations there
        are."""
        notes = folder.with_name(f"{folder.name}-operations")
        for place, prepare in (
            (folder, None),
            (folder / "again", Watched(folder, None, notes).install),
        ):
            begun = time.monotonic()
            done = self.begin(place, prepare).end()
            self.seconds = time.monotonic() - begun
            assert done.code == 0, done.err
            found = self.left(place)
            assert found is not None
            assert self.wanted in (None, found), "two undisturbed runs are not equal"
            self.wanted = found
        self.operations = notes.read_text(encoding="utf-8", errors="replace").splitlines()


def killed_at(tried: Tried, command: Command, folder: Path, number: int, name: str) -> None:
    """Killed before one operation on a file, then given again."""
    prepare = partial(_watch, folder, number)
    child = command.begin(folder, prepare)
    done = child.end(LEAST)
    if done.code != -signal.SIGKILL:
        return tried.fault("the operation was not reached", name, done.err[-200:])
    if judge(tried, command, folder, done, name):
        finish(tried, command, folder, name)


def _watch(folder: Path, number: int) -> None:
    Watched(folder, number).install()


def killed_again_and_again(
    tried: Tried, command: Command, folder: Path, random: Random, most: int, name: str
) -> int:
    """Up to `most` times, each at a random moment, then given again; how often it was killed."""
    for kills in range(most):
        child = command.begin(folder)
        child.wait_until(random.uniform(0.0, 1.05 * command.seconds))
        landed = child.send(signal.SIGKILL)
        done = child.end(LEAST)
        if not judge(tried, command, folder, done, name):
            return kills + 1
        if not landed and done.code == 0:
            if kills:
                verdict(tried, command, folder, done, name, kills)
            return kills
    finish(tried, command, folder, name, most)
    return most


def judge(tried: Tried, command: Command, folder: Path, done: Done, name: str) -> bool:
    """Of a command that was disturbed: it says nothing of a whole result where there is none."""
    if "Traceback" in _own(done.err):
        tried.fault("traceback", name, done.err[-300:])
    elif command.claims(done) and command.left(folder) != command.wanted:
        tried.fault("silent: said of half a result that it is whole", name, done.err[-300:])
    else:
        return True
    return False


def _own(said: str) -> str:
    """Without what Python itself says of an interrupt in the middle of an import."""
    return re.sub(
        r"Exception ignored in: <function _get_module_lock.*?KeyboardInterrupt",
        "",
        said,
        flags=re.S,
    )


def finish(tried: Tried, command: Command, folder: Path, name: str, kills: int = 1) -> None:
    verdict(tried, command, folder, command.begin(folder).end(LEAST), name, kills)


def verdict(
    tried: Tried, command: Command, folder: Path, done: Done, name: str, kills: int = 1
) -> None:
    """Of the command that was given again and left in peace."""
    found = command.left(folder)
    if done.code not in command.again or "Traceback" in _own(done.err):
        return tried.fault(f"given again it ends with {done.code}", name, done.err[-300:])
    if found is None:
        return tried.fault("given again it leaves no result", name, done.err[-300:])
    if found != command.wanted:
        return tried.fault("silent: another result", name, difference(found, command.wanted))
    for _ in range(kills):
        tried.outcome(
            "the same result" if not left_over(folder) else "the same result, and a temporary"
        )


def left_over(folder: Path) -> list[str]:
    """Temporary files and folders of a process that was killed."""
    hidden = (
        path for path in folder.rglob(".*") if not path.name.endswith((".lock", ".out", ".err"))
    )
    return sorted(path.name for path in hidden)


def difference(found: Any, wanted: Any) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        return "; ".join(f"{key}: {difference(found.get(key), wanted.get(key))}" for key in keys)[
            :300
        ]
    return f"{str(found)[:120]} and not {str(wanted)[:120]}"


def digests(folder: Path, pattern: str = "*") -> dict[str, str] | None:
    """Of every file that is not hidden; None where the folder is not there."""
    if not folder.is_dir():
        return None
    paths = [
        path
        for path in sorted(folder.rglob(pattern))
        if path.is_file() and not path.name.startswith(".")
    ]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }
