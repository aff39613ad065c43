"""Free memory of this process: the system's, and that of the control groups it runs in (Linux)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
"""Where Linux keeps the limits of containers and of a cluster's jobs."""


def free_bytes() -> float:
    """The least that the system and each of the control groups can give; elsewhere infinity."""
    return min([math.inf, *_system(), *_groups()])


def _system() -> Iterator[float]:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024.0 * int(line.split()[1])


def _groups() -> Iterator[float]:
    try:
        said = Path("/proc/self/cgroup").read_text(encoding="utf-8")
    except OSError:
        return
    if "0::/" not in said:  # control groups of the first version
        return
    group = GROUPS / (said.split("0::/")[1].splitlines() or [""])[0]
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError):  # `max`: no limit; the outermost has no such file
            limit = int((folder / "memory.max").read_text())
            yield limit - int((folder / "memory.current").read_text())
