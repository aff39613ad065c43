"""Endings of child processes: what is written for the parent, and which process shows it."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from lorakit.children import ERROR_FILE, SIGNALED, STATUS_FILE, STOPPED, Ending, tell_parent
from lorakit.errors import ChildError, DataError, Stopped

FAILED = Ending(DataError.code, "example 17 is broken", 2)
STOP = Ending(STOPPED, "stopped at step 3", 143)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """`files(launched, rank)`: the status file and torchrun's error file of a process."""

    def make(launched: bool, rank: int | None):
        status = tmp_path / "status.json"
        error = tmp_path / "error.json"
        for name in (STATUS_FILE, ERROR_FILE, "RANK"):
            monkeypatch.delenv(name, raising=False)
        if launched:
            monkeypatch.setenv(STATUS_FILE, str(status))
        if rank is not None:
            monkeypatch.setenv(ERROR_FILE, str(error))
            monkeypatch.setenv("RANK", str(rank))
        return status, error

    return make


@pytest.mark.parametrize(
    ("launched", "rank", "ending", "shown", "reported"),
    [
        (False, None, FAILED, True, False),
        (True, None, FAILED, True, True),
        (True, None, STOP, True, True),
        (True, 0, FAILED, False, False),
        (True, 1, FAILED, False, False),
        (True, 0, STOP, False, True),
        (True, 1, STOP, False, False),
        (False, 0, FAILED, False, False),
        (False, 0, STOP, True, False),
        (False, 1, STOP, False, False),
    ],
)
def test_one_process_shows_an_ending(files, launched, rank, ending, shown, reported):
    status, error = files(launched, rank)
    assert tell_parent(ending) is shown
    assert Ending.read(status) == (ending if reported else None)
    assert error.is_file() is (rank is not None)


def test_torchrun_reads_the_error_file(files):
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    from lorakit.cli.elastic import _ending

    _, error = files(True, 1)
    tell_parent(FAILED)
    failure = ProcessFailure(local_rank=1, pid=os.getpid(), exitcode=2, error_file=str(error))
    assert failure.timestamp > 0
    assert _ending(failure, "process 1 of 2") == FAILED


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_is_named(tmp_path, number):
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    from lorakit.cli.elastic import _ending

    file = str(tmp_path / "none")
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=-number, error_file=file)
    ending = _ending(failure, "process 1 of 2")
    assert ending is not None
    assert (ending.code, ending.exit_code) == (SIGNALED, 128 + number)
    assert "process 1 of 2" in ending.message
    assert number.name in ending.message


def test_a_failure_without_an_error_has_no_ending(tmp_path):
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    from lorakit.cli.elastic import _ending

    file = str(tmp_path / "none")
    assert _ending(ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=file), "p") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"code": "data"}', "\x00"])
def test_a_damaged_file_is_none(tmp_path, text):
    file = tmp_path / "status.json"
    file.write_text(text)
    assert Ending.read(file) is None


@pytest.mark.parametrize(
    ("ending", "kind", "code"),
    [(None, ChildError, SIGNALED), (STOP, Stopped, STOPPED), (FAILED, ChildError, DataError.code)],
)
def test_after_a_signal_the_exit_code_is_the_signals(ending, kind, code):
    from lorakit.cli.launch import _stopped

    error = _stopped(signal.SIGHUP, ending)
    assert type(error) is kind
    assert (error.code, error.exit_code) == (code, 128 + signal.SIGHUP)


def test_a_full_disk_hides_no_error(files, tmp_path, monkeypatch):
    files(True, None)
    monkeypatch.setenv(STATUS_FILE, str(tmp_path / "missing" / "status.json"))
    assert tell_parent(FAILED)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGRTMIN + 3])
def test_each_signal_has_a_name(number):
    ending = Ending.by_signal(number, "process 1")
    assert (ending.code, ending.exit_code) == (SIGNALED, 128 + number)


def test_a_signal_that_was_ignored_stays_ignored():
    from lorakit.cli.launch import _forwarding

    before = {signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    # a study that was stopped ignores it from then on
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with subprocess.Popen(["sleep", "60"]) as process, _forwarding(process) as received:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            assert process.wait() == -signal.SIGTERM
        assert received == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
