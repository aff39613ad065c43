"""On this machine: a few subprocesses at a time, with the cores and GPUs shared out among them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lorakit.errors import InputError
from lorakit.studies.grid import Slurm
from lorakit.studies.launchers._base import Launcher, Task, stop


class Local:
    def launch(
        self,
        tasks: Sequence[Task],
        name: str,
        at_once: int | None,
        slurm: Slurm,
        changed: Callable[[], None],
    ) -> None:
        """Ctrl-C and SIGTERM stop the runs, which write their checkpoints first."""
        if not tasks:
            return
        slots = min(at_once or max(1, len(_gpus())), len(tasks))
        with _alone(tasks[0].stem.parent, name), _sigterm_as_ctrl_c():
            _work(list(tasks), [_share(i, slots) for i in range(slots)], changed)

    def alive(self, tasks: Sequence[Task]) -> dict[Task, str]:
        """A run ends with its launcher, which holds a lock as long as it lives."""
        records = {task: task.record() for task in tasks if not task.job.is_file()}
        begun = [
            task for task, record in records.items() if record is not None and record.ended is None
        ]
        if not begun or not _held(_lock_of(begun[0].stem.parent)):
            return {}
        return dict.fromkeys(begun, "running")


def _work(waiting: list[Task], shares: list[dict[str, str]], changed: Callable[[], None]) -> None:
    running: dict[int, tuple[Task, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or running:
            for slot in [i for i in range(len(shares)) if i not in running][: len(waiting)]:
                task = waiting.pop(0)
                task.job.unlink(missing_ok=True)  # it is no longer of a queue
                running[slot] = task, task.start({**os.environ, **shares[slot]})
                changed()
            for slot, (task, process) in list(running.items()):
                if (code := process.poll()) is not None:
                    del running[slot]
                    task.end(code)
                    changed()
            time.sleep(0.2)
    finally:  # Ctrl-C, or an error of our own
        if running:
            _stop(running.values())
            changed()


def _stop(running: Collection[tuple[Task, subprocess.Popen[bytes]]]) -> None:
    processes = [process for _, process in running]
    try:
        stop(processes)
    except KeyboardInterrupt:  # once more: at once
        stop(processes, grace=0)
    for task, process in running:
        code = process.wait()
        task.end(
            -signal.SIGTERM if code == -signal.SIGKILL else code
        )  # it was we who killed it: it did not fail


def _share(slot: int, slots: int) -> dict[str, str]:
    """Each slot has its cores and GPUs; of more slots than GPUs, several have one GPU together."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    share = (
        {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, cores // slots))}
    )
    if gpus := _gpus():
        own = gpus[slot::slots] or [gpus[slot % len(gpus)]]
        share["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return share


def _gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them; without it, by number."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name.strip()]
    return [str(i) for i in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    lock = FileLock(_lock_of(folder), timeout=2)  # a look at the state holds it for a moment
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"another process runs the study {name} in {folder.parent}; --status shows it"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _lock_of(folder: Path) -> Path:
    return folder / ".lock"


def _held(path: Path) -> bool:
    if not path.is_file():
        return False
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there can it be caught
        yield
        return

    told: list[int] = []

    def interrupt(number: int, _frame: Any) -> None:
        told.append(number)
        if len(told) == 1:  # timeout(1) and some schedulers send it twice
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        # told, the process is about to end, and a second one must not end it sooner: ignored, for Python gives its own
        # handlers up as it ends
        signal.signal(signal.SIGTERM, signal.SIG_IGN if told else before)


PLUGIN: Launcher = Local()
