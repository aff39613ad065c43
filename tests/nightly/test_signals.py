"""Told to stop, held, or with another time of day: the same command then ends in the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from glob import glob
from pathlib import Path
from random import Random

import pytest

from tests.nightly.child import Child, Done, jumping_clock
from tests.nightly.disturbed import LEAST, Command, finish, judge, verdict
from tests.nightly.plan import Tried
from tests.nightly.test_kills import training

DAY = 86_400.0
FAKETIME = next(iter(glob("/usr/lib/*/faketime/libfaketime.so.1")), None)
STOPPED = {signal.SIGTERM: (143, -signal.SIGTERM), signal.SIGINT: (130, -signal.SIGINT)}


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Command:
    command = training()
    command.learn(tmp_path_factory.mktemp("train") / "whole")
    return command


def begun(train: Command, folder: Path, random: Random) -> Child:
    """A run at some moment, once it has said its first word."""
    child = train.begin(folder)
    until = time.monotonic() + LEAST
    while child.alive and not child.said[1].stat().st_size and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(random.uniform(0.0, 0.9 * train.seconds))
    return child


def stopped(tried: Tried, train: Command, folder: Path, name: str, done: Done, number: int) -> None:
    """A run that was told to stop says so, with the signal's exit code; or it had ended before."""
    if done.code == 0:
        return verdict(tried, train, folder, done, name)
    if done.code not in STOPPED[signal.Signals(number)]:
        return tried.fault(f"told to stop it ends with {done.code}", name, done.err[-200:])
    if done.code > 0 and "stopped" not in done.err:
        return tried.fault("told to stop it does not say so", name, done.err[-200:])
    if judge(tried, train, folder, done, name):
        finish(tried, train, folder, name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_once(train: Command, tmp_path: Path, number: int) -> None:
    with Tried(f"{signal.Signals(number).name} in training") as tried:
        for name, random in tried.cases(5):
            child = begun(train, tmp_path / name[-3:], random)
            child.send(number)
            stopped(tried, train, tmp_path / name[-3:], name, child.end(LEAST), number)


def test_twice(train: Command, tmp_path: Path) -> None:
    """The second at once, or as late as it ends the run without a checkpoint."""
    with Tried("SIGINT twice in training") as tried:
        for name, random in tried.cases(5):
            child = begun(train, tmp_path / name[-3:], random)
            child.send(signal.SIGINT)
            time.sleep(random.choice((0.0, 0.05, 1.2)))
            child.send(signal.SIGINT)
            stopped(tried, train, tmp_path / name[-3:], name, child.end(LEAST), signal.SIGINT)


def test_held(train: Command, tmp_path: Path) -> None:
    with Tried("SIGSTOP and SIGCONT in training") as tried:
        for name, random in tried.cases(5):
            child = begun(train, tmp_path / name[-3:], random)
            child.send(signal.SIGSTOP)
            time.sleep(random.uniform(0.5, 2.0))
            child.send(signal.SIGCONT)
            verdict(tried, train, tmp_path / name[-3:], child.end(LEAST), name)


def test_clock_that_is_set(train: Command, tmp_path: Path) -> None:
    """By a day, back or ahead, while it trains."""
    with Tried("clock jump in training") as tried:
        for name, random in tried.cases(4):
            jump = partial(
                jumping_clock, random.choice((DAY, -DAY)), random.uniform(0.0, train.seconds)
            )
            verdict(
                tried,
                train,
                tmp_path / name[-3:],
                train.begin(tmp_path / name[-3:], jump).end(LEAST),
                name,
            )


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")
def test_clock_of_every_library(train: Command, tmp_path: Path) -> None:
    """As above, under libfaketime, which torch, Python and the file system's times see too."""
    clock = tmp_path / "clock"
    faked = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with Tried("clock jump under libfaketime") as tried:
        for name, random in tried.cases(2):
            folder, jump = tmp_path / name[-3:], random.choice(("+1d", "-1d"))
            folder.mkdir()
            clock.write_text("+0")
            done = under(train, folder, faked, partial(clock.write_text, jump))
            verdict(tried, train, folder, done, name)


def under(train: Command, folder: Path, environ: dict[str, str], act: Callable[[], object]) -> Done:
    """The command from its beginning, in an environment; `act` once the first step was made."""
    line = [sys.executable, "-m", "lorakit", *map(str, train.line(folder))]
    environ = os.environ | {"OMP_NUM_THREADS": "1"} | environ
    with subprocess.Popen(
        line, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = []
        for text in process.stderr:
            said.append(text)
            if text.startswith("step "):
                act()
                break
        out, err = process.communicate(timeout=LEAST)
    return Done(process.returncode, out, "".join(said) + err)
