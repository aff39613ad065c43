"""Several processes: the same command again under accelerate's launcher, with one error message and its exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lorakit.cli.output import console

# torchrun's own account of a failed process, which begins with this file's name, says nothing that the process did not
NOISE = re.compile(rb"[^\n]*torch/distributed/elastic[^\n]*")
STOPPED = re.compile(rb"^stopped at step [^\n]*\n", re.MULTILINE)
EXIT_CODE = re.compile(rb"exitcode: (-?\d+)")


def visible_gpus() -> int:
    """GPUs that this process may use. torch is asked only where a driver shows itself: it takes a second to import."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    return torch.cuda.device_count()


def launch(processes: int, cpu: bool) -> int:
    """Run this command in `processes` processes; the command is shown. Returns the first failure's exit code."""
    command = [
        "accelerate", "launch", "--multi_gpu", "--num_processes", str(processes), "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "lorakit", *_arguments(),
    ]  # fmt: skip
    environment = os.environ.copy()
    if cpu:
        # accelerate's own --cpu starts one process without MPI; its torchrun path with this variable starts them all
        environment |= {"ACCELERATE_USE_CPU": "true", "LORAKIT_CPU": "1"}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    if sys.stderr.isatty():
        environment["LORAKIT_TTY"] = "1"
    shown = "ACCELERATE_USE_CPU=true " if cpu else ""
    console().print(f"$ {shown}{' '.join(command)}", markup=False, soft_wrap=True)
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *command[1:]]
    with subprocess.Popen(launcher, env=environment, stderr=subprocess.PIPE) as process, _passed_on(process) as told:
        assert process.stderr is not None
        code = _forward(process.stderr)
    if told:
        return 128 + told[0]
    return process.returncode if code is None else code


@contextmanager
def _passed_on(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Inside, a Ctrl-C or SIGTERM does not end this process before those that it started, which write a checkpoint
    first. The terminal sends a Ctrl-C to all of them; a SIGTERM is passed on."""
    told: list[int] = []

    def take(number: int, _frame: object) -> None:
        told.append(number)
        if number == signal.SIGTERM:
            process.terminate()

    before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _arguments() -> list[str]:
    given = sys.argv[1:]
    own = [i for i, a in enumerate(given) if a == "--processes" or a.startswith("--processes=")]
    skipped = {*own, *(i + 1 for i in own if given[i] == "--processes")}
    return [a for i, a in enumerate(given) if i not in skipped]


def _forward(source: IO[bytes]) -> int | None:
    """Pass on what the processes say until the launcher reports a failure; that one's exit code, if any."""
    while chunk := source.read1(65536):  # type: ignore[attr-defined]
        found = NOISE.search(chunk)
        if found is None or os.environ.get("LORAKIT_DEBUG") == "1":
            sys.stderr.buffer.write(chunk)
            sys.stderr.buffer.flush()
            continue
        sys.stderr.buffer.write(chunk[: found.start()])
        sys.stderr.buffer.flush()
        rest = chunk[found.start() :] + source.read()
        sys.stderr.buffer.writelines(STOPPED.findall(rest))
        sys.stderr.buffer.flush()
        code = EXIT_CODE.search(rest)
        return None if code is None else int(code.group(1))
    return None
