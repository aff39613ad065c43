"""How much is tried and from which seed; what came of it, as a table; and what must hold of every
single case.

LORAKIT_FUZZ_SEED=N   the seed, which is another in each run and is printed
LORAKIT_FUZZ_SCALE=X  a share of the counts: 0.02 takes a minute or two
LORAKIT_FUZZ_CASE=A   one changed file alone, by the name that a fault is listed with
"""

from __future__ import annotations

import os
import resource
import secrets
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from lorakit.errors import InputError
from tests.hostile import Hang, limited

SEED = int(os.environ.get("LORAKIT_FUZZ_SEED") or secrets.randbelow(10**9))
SCALE = float(os.environ.get("LORAKIT_FUZZ_SCALE") or 1)
ONLY = os.environ.get("LORAKIT_FUZZ_CASE")
ROOM = 3 * 2**30
"""Bytes that a case may take in addition to those of the process."""


def count(full: int) -> int:
    return max(1, round(full * SCALE))


def random_of(*name: object) -> Random:
    """The same numbers for the same name and seed."""
    return Random("/".join(map(str, (SEED, *name))))


class Silent(Exception):
    """What was taken without a word is not what was given."""


@dataclass
class Row:
    """One line of the table."""

    kind: str
    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """What is wrong -> the cases, and the words of the first."""
    seconds: float = 0.0


ROWS: list[Row] = []


class Tried:
    """The cases of one kind; as a context it ends with a line in the table, and fails if a case
    had a fault."""

    def __init__(self, kind: str, seconds: float = 5.0):
        self.row, self.seconds = Row(kind), seconds

    def __enter__(self) -> Tried:
        ROWS.append(self.row)
        self.begun = time.monotonic()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.row.seconds = time.monotonic() - self.begun
        if kind is None and self.row.faults:
            pytest.fail(
                "\n".join([f"{self.row.kind}, LORAKIT_FUZZ_SEED={SEED}:", *listed(self.row)]),
                pytrace=False,
            )

    def cases(self, full: int) -> Iterator[tuple[str, Random]]:
        """Each with its name and its own random numbers."""
        for number in range(count(full)):
            name = f"{self.row.kind}:{number}"
            if ONLY in (None, name):
                yield name, random_of(name)

    def outcome(self, word: str) -> None:
        self.row.tried += 1
        self.row.outcomes[word] += 1

    def fault(self, what: str, case: str, words: str = "") -> None:
        self.row.tried += 1
        self.row.outcomes[f"FAULT {what.split(':')[0]}"] += 1
        self.row.faults.setdefault(what, []).append(
            case if not words else f"{case} ({words[:300]})"
        )

    @contextmanager
    def case(self, name: str, taken: str = "taken, the same") -> Iterator[None]:
        """Inside is one case: refused by an InputError, or taken; what is silently wrong raises
        `Silent`."""
        try:
            with room(ROOM), limited(self.seconds):
                yield
        except InputError as error:
            said = str(error).strip() and error.exit_code == 2
            self.outcome("refused") if said else self.fault("refused without a word", name)
        except Silent as error:
            self.fault(f"silent: {error.args[0]}", name, " ".join(map(str, error.args[1:])))
        except Hang:
            self.fault(f"hang: more than {self.seconds:g} s of processor time", name)
        except Exception as error:
            self.fault(f"traceback: {type(error).__name__} in {place_of(error)}", name, str(error))
        else:
            self.outcome(taken)


def place_of(error: Exception) -> str:
    """The last line of lorakit's that it came through, without its number: a kind of fault has one
    place."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/lorakit/" in frame.filename
    ]
    if not frames:
        return "a test"
    return f"{Path(frames[-1].filename).name}, {frames[-1].name}"


@contextmanager
def room(more: int) -> Iterator[None]:
    """Inside, this process may take so many bytes more: beyond that it is a MemoryError, and not
    the machine's end."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + more, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _data_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[5]) * resource.getpagesize()


def listed(row: Row) -> list[str]:
    """The faults of a row, the most frequent first, each with its first case."""
    most = sorted(row.faults.items(), key=lambda item: -len(item[1]))
    return [f"  {len(cases)} x {what}; first: {cases[0]}" for what, cases in most]


def table() -> list[str]:
    """In Markdown, for docs/log.md."""
    lines = ["| kind | tried | outcomes | seconds |", "| --- | ---: | --- | ---: |"]
    for row in ROWS:
        found = ", ".join(f"{n:,} {word}" for word, n in row.outcomes.most_common()) or "nothing"
        lines.append(f"| {row.kind} | {row.tried:,} | {found} | {row.seconds:.0f} |")
    return lines
