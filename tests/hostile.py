"""Hostile input: how it is made out of good input, and what must hold whatever it is.

Either what is read is right, or it is refused by an InputError (exit code 2) that says something:
no other exception, no hang, no file written, nothing run.
"""

from __future__ import annotations

import json
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from random import Random
from stat import S_ISDIR
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorakit.errors import InputError

SECONDS = 5.0
"""Of processor time, so that a busy machine changes nothing."""
PATIENCE = 60.0
"""Seconds in all, for what only waits."""
MIB = 512
"""By which memory may grow over a whole test."""
CANARY = "canary-was-here"


class Hang(BaseException):
    """Not to be caught by anything that is tried."""


class Trial:
    """Inputs that were tried in a folder, each once, and what came of them."""

    def __init__(self, folder: Path):
        self.folder, self.seen, self.counts = folder, set(), Counter()
        self.reasons: Counter[str] = Counter()

    def read(self, digest: object, read: Callable[[], Any], right: Callable[[Any], None]) -> None:
        """read: what is tried; right: asserts of what it gave.

        Files are as before, or `read` has written.
        """
        before = self.files()
        known, self.seen = digest in self.seen, self.seen | {digest}
        try:
            with limited():
                found = read()
            error = None
        except InputError as raised:
            found, error = None, raised
        assert self.files() == before, "a file was written"
        if error is None:
            with limited():
                right(found)
        else:
            assert str(error).strip(), "refused without a word"
            assert error.exit_code == 2
            self.reasons[type(error).__name__] += not known
        self.counts["right" if error is None else "refused"] += not known

    def files(self) -> list[tuple[str, int]]:
        found = ((str(path), path.lstat()) for path in self.folder.parent.rglob("*"))
        return sorted(
            (path, 0 if S_ISDIR(stat.st_mode) else stat.st_mtime_ns) for path, stat in found
        )


@contextmanager
def limited(most: float = SECONDS) -> Iterator[None]:
    def hang(*_: Any) -> None:
        raise Hang(f"more than {most} s of processor time, or {PATIENCE} s in all")

    kinds = {
        signal.SIGPROF: (signal.ITIMER_PROF, most),
        signal.SIGALRM: (signal.ITIMER_REAL, PATIENCE),
    }
    before = {number: signal.signal(number, hang) for number in kinds}
    try:
        for timer, seconds in kinds.values():
            signal.setitimer(timer, seconds)
        yield
    finally:
        for number, (timer, _) in kinds.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tiers(few: int, many: int) -> Any:
    """The entire count is for the night, and `few` for every run."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.nightly)])


def each(count: int, trial: Trial, one: Callable[[Random], None]) -> None:
    """`one(random)` until `count` different inputs were tried; the same ones each time."""
    start = memory_mib()

    # more than are needed, for some are equal
    @settings(
        max_examples=2 * count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=True))
    def run(random: Random) -> None:
        if len(trial.seen) < count:
            one(random)

    run()
    assert len(trial.seen) >= count, f"{len(trial.seen)} different inputs"
    print(
        f"\n{trial.folder.name}: {len(trial.seen)} tried, {dict(trial.counts)}, "
        f"{dict(trial.reasons)}"
    )
    assert trial.counts["refused"] > count // 5, "hardly any of it is hostile"
    assert trial.counts["right"] >= count // 50, "hardly any of it is near to being right"
    assert memory_mib() - start < MIB
    assert not list(Path.cwd().glob(f"{CANARY}*"))
    assert not list(trial.folder.parent.rglob(f"{CANARY}*"))


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


CODE = f"__import__('os').system('touch {CANARY}')"
WORDS = (
    "",
    " ",
    "\n",
    "\x00",
    "null",
    "nan",
    "-inf",
    "1e999",
    "9" * 400,
    "0x10",
    "yes",
    "é" * 9,
    "\u202e\u2028",
    "\ufeff",
    "\U0001f600",
    "\ud83d",
    "x" * 70_000,
    "../../../../etc/passwd",
    "/dev/zero",
    "/dev/null",
    "/proc/self/mem",
    "~root/x",
    "lorakit:../../secrets",
    "file:///etc/passwd",
    "{0.__class__}",
    "{x!r:>99999999}",
    "re:(a+)+$",
    "re:(",
    "*" * 50,
    "[" * 60,
    CODE,
    f"$(touch {CANARY})",
    f"`touch {CANARY}`",
    "{{ cycler.__init__.__globals__.os }}",
    "%s%n",
    "a.b.c",
)
VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**30,
    -(10**400),
    0.5,
    -0.0,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [None],
    [[]],
    [[1, 2], [3]],
    {"": 1},
    {"name": "lora"},
    {"a": {"b": {"c": 1}}},
    deep(25),
    deep(200),
    list(range(500)),
    {f"k{i}": i for i in range(300)},
    *WORDS,
)


def mutated(value: Any, random: Random, times: int = 0) -> Any:
    """Plain data with a few places changed: another value, a key more or less or renamed, wrapped,
    doubled, swapped."""
    value = deepcopy(value)
    for _ in range(times or random.choice((1, 1, 2, 3))):
        parents = list(_parents(value))
        if not parents:
            return random.choice(VALUES)
        parent, key = random.choice(parents)
        act = random.randrange(7)
        if act <= 2:
            parent[key] = random.choice(VALUES)
        elif act == 3:
            del parent[key]
        elif act == 4 and isinstance(parent, dict):
            parent[random.choice((*WORDS, key + "s", key.upper()))] = parent.pop(key)
        elif act == 5:
            parent[key] = random.choice(
                ([parent[key]], {key: parent[key]}, [parent[key]] * 3, str(parent[key]))
            )
        else:
            other, place = random.choice(parents)
            parent[key] = deepcopy(
                other.get(place) if isinstance(other, dict) else other[min(place, len(other) - 1)]
            )
    return value


def _parents(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in it: the mapping or list, and the key."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _parents(value[key])


BYTES = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x80",
    b"\r",
    b"\n",
    b"\r\n",
    b"\t",
    b'"',
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"- ",
    b"#",
    b"&a ",
    b"*a",
    b"!!python/object/apply:os.system ",
    b"<",
    b">",
    b"&",
    b"\\",
    b"\\ud800",
    b"|",
    b"<<: ",
    b"? ",
    b"%YAML 1.3\n",
    b"--- ",
    b"\xe2\x80\xa8",
    b"\x1c",
    b"\x85",
    b"\xc2\x85",
    b"9" * 5000,
    b"[" * 3000,
    b"a" * 20_000,
    b"e",
    b"-",
    b".",
    b"null",
    b"NaN",
    b"1e9999",
)


def damaged(data: bytes, random: Random) -> bytes:
    """Bytes inserted, removed, flipped, doubled, cut off; lines swapped; another encoding."""
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(data) + 1)
        end = min(len(data), at + random.choice((1, 1, 3, 20, 200)))
        act = random.randrange(10)
        if act <= 3:
            data = data[:at] + random.choice(BYTES) + data[at:]
        elif act == 4:
            data = data[:at] + random.choice(BYTES) + data[end:]
        elif act == 5:
            data = data[:at] + data[end:]
        elif act == 6:
            data = data[:end] + data[at:end] * random.choice((1, 2, 50)) + data[end:]
        elif act == 7:
            data = data[:at]
        elif act == 8:
            lines = data.splitlines(keepends=True)
            random.shuffle(lines)
            data = b"".join(lines)
        else:
            flipped = bytes(byte ^ (1 << random.randrange(8)) for byte in data[at:end])
            data = data[:at] + flipped + data[end:]
    if random.randrange(25) == 0:
        other = random.choice(("utf-16", "utf-32", "utf-8-sig", "latin-1", "utf-7"))
        data = data.decode("utf-8", "replace").encode(other, "replace")
    return data


def as_json(value: Any, random: Random) -> bytes:
    """JSON, or nearly: NaN and Infinity are Python's own."""
    text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")
