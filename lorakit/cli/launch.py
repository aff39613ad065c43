"""Several processes: the same command again under accelerate's launcher, with one error message and its exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import IO, Any

from lorakit.cli.output import console

NOISE = re.compile(
    rb"[^\n]*torch/distributed/(elastic|run\.py)|\[rank\d+\]:\[W|DeepSpeed [\w.]+ built"
)
"""What torchrun and torch say of processes that fail: nothing that the processes did not."""
STOPPED = re.compile(rb"stopped at step ")
"""What a process says that has written its checkpoint; torchrun may have said something before."""
HELD = re.compile(rb"[EIWTD\[]")
"""How such a line begins: it is held until it is whole."""
FIRST = re.compile(rb"Root Cause.*?rank +: (\d+).*?exitcode +: (-?\d+)", re.DOTALL)
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 60
"""Seconds from a forwarded signal until the launcher is killed. torchrun itself gives its processes 30, then kills."""


class Strategy(str, Enum):
    """What the processes share: a file in configs/accelerate/."""

    ddp = "ddp"
    fsdp2 = "fsdp2"
    zero2 = "zero2"


def visible_gpus() -> int:
    """GPUs that this process may use. torch is asked only where a driver shows itself: it takes a second to import."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    return torch.cuda.device_count()


def launch(processes: int, cpu: bool, strategy: Strategy = Strategy.ddp) -> int:
    """Run this command in `processes` processes; the command is shown. Returns the first failure's exit code, or 128 +
    the signal that ended it."""
    command = [
        "accelerate",
        "launch",
        "--config_file",
        str(_config(strategy)),
        "--num_processes",
        str(processes),
        "-m",
        "lorakit",
        *_arguments(),
    ]
    settings = {"CUDA_VISIBLE_DEVICES": ""} if cpu and visible_gpus() else {}
    if cpu and strategy is Strategy.zero2:
        settings["DS_ACCELERATOR"] = (
            "cpu"  # or DeepSpeed says on stdout, in the launcher too, that it found no other
        )
    environment = os.environ | settings
    if cpu:
        environment["LORAKIT_CPU"] = "1"
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    if sys.stderr.isatty():
        environment["LORAKIT_TTY"] = "1"
    shown = "".join(
        f"{name}={value} " for name, value in settings.items()
    )  # ours: nothing to quote
    from lorakit.shell import join
    from lorakit.studies.launchers._base import end_with_parent

    console().print(f"$ {shown}{join(command)}")

    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *command[1:]]
    # in a session of its own: Ctrl-C would reach it twice, from the terminal and from here
    with (
        subprocess.Popen(
            launcher,
            env=environment,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=end_with_parent,
        ) as process,
        _forwarding(process) as received,
    ):
        assert process.stderr is not None
        code = _pass_on(process.stderr, processes, received)
    if received:
        return 128 + received[0]
    return process.returncode if code is None else code


def _config(strategy: Strategy) -> Path:
    from lorakit.recipe.load import shipped

    file = shipped("configs") / "accelerate" / f"{strategy.value}.yaml"
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def _arguments() -> list[str]:
    """What was given to lorakit, without what is for the launcher."""
    given, kept = iter(sys.argv[1:]), []
    for word in given:
        if word in ("--processes", "--strategy"):
            next(given, None)
        elif not word.startswith(("--processes=", "--strategy=")):
            kept.append(word)
    return kept


@contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Inside, a signal that would end this process is handed to the launcher instead, which hands it to its processes,
    so that they can save; the list holds those that came."""
    received: list[int] = []

    def forward(number: int, _frame: Any) -> None:
        if (
            not received and process.poll() is None
        ):  # torchrun drops its processes where a second one comes
            # at SIGHUP they would end at once
            process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)
            signal.alarm(PATIENCE)
        received.append(number)

    def kill(*_: Any) -> None:
        process.kill()

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, kill)
    try:
        yield received
    finally:
        process.wait()
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(source: IO[bytes], processes: int, received: Sequence[int]) -> int | None:
    """Pass on what the processes say, without what the launcher says of their failure; the exit code of the one that
    failed first, if any. One that was killed could not say anything, so that it is said here."""
    debug = os.environ.get("LORAKIT_DEBUG") == "1"
    said, report = b"", b""
    for piece in _pieces(source):
        ours = not report and not piece.startswith(
            b"Traceback "
        )  # without --debug no process of ours writes one
        report += b"" if ours and not debug else piece
        if debug or STOPPED.match(piece) or (ours and NOISE.match(piece) is None):
            said = (said + piece)[-4096:]
            _write(piece)
    found = FIRST.search(report)
    rank, code = (int(found.group(1)), int(found.group(2))) if found else (0, None)
    if received and not (b"error: " in said or STOPPED.search(said)):
        _write(f"error: stopped by {_named(received[0])}\n".encode())
    elif b"error: " not in said and code is not None and code < 0:
        _write(
            f"error: process {rank} of {processes} was ended by {_named(-code)}; the others were ended\n".encode()
        )
    return code if code is None or code >= 0 else 128 - code


def _named(number: int) -> str:
    name = signal.Signals(number).name
    return (
        f"{name} (the system does that when memory runs out)" if number == signal.SIGKILL else name
    )


def _pieces(source: IO[bytes]) -> Iterator[bytes]:
    """Lines; one that is not whole yet comes in pieces, for it may be a bar that shows progress."""
    rest = b""
    while chunk := source.read1(65536):  # type: ignore[attr-defined]
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if rest and HELD.match(rest) is None:
            yield rest
            rest = b""
    if rest:
        yield rest


def _write(piece: bytes) -> None:
    sys.stderr.buffer.write(piece)
    sys.stderr.buffer.flush()
