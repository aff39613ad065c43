"""On a cluster: a job array through submitit. A job whose time is up writes a checkpoint and queues itself again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lorakit.errors import InputError, TrainingError
from lorakit.runs.result import write_whole
from lorakit.studies.grid import Slurm
from lorakit.studies.launchers._base import GRACE, Launcher, Task, tell

TIMES_UP = 100
"""Times that a job may reach its limit and be queued again."""


class OnSlurm:
    def launch(
        self,
        tasks: Sequence[Task],
        name: str,
        at_once: int | None,
        slurm: Slurm,
        changed: Callable[[], None],
    ) -> None:
        if not tasks:
            return
        submitit = _submitit()
        folder = tasks[0].stem.parent / "slurm"
        _refuse_odd_path(folder)
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=TIMES_UP)
        executor.update_parameters(**_parameters(slurm, name, at_once))
        try:
            with executor.batch():  # one array
                jobs = [executor.submit(Work(task)) for task in tasks]
        except Exception as error:
            said = str(getattr(error, "stderr", "") or error).strip().splitlines()
            raise InputError(
                f"Slurm did not take the jobs: {said[-1] if said else error}"
            ) from error
        for task, job in zip(tasks, jobs, strict=True):
            write_whole(task.job, json.dumps({"job": job.job_id}) + "\n")
        changed()

    def alive(self, tasks: Sequence[Task]) -> dict[Task, str]:
        """By squeue, which needs no accounting; a job that is not in it has ended."""
        jobs = {task: job for task in tasks if (job := job_of(task))}
        queue = _queue() if jobs else {}
        return {task: queue[job] for task, job in jobs.items() if job in queue}


def _refuse_odd_path(folder: Path) -> None:
    """It is written on a line of the job's script, and a newline in it would begin another one."""
    if any(
        unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in str(folder.absolute())
    ):
        raise InputError(
            f"the folder {str(folder)!r} has a character in its path that Slurm's script cannot hold; take another, "
            "--runs DIR"
        )


class Work:
    """What a job does. submitit calls `checkpoint` when the time is up or the job has to make room."""

    def __init__(self, task: Task):
        self.task = task
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        self.process = self.task.start()
        record = self.task.end(self.process.wait())
        if record.code:
            raise TrainingError(record.error)  # so that Slurm too calls the job failed
        return 0

    def checkpoint(self) -> Any:
        if self.process is not None:
            self.task.end(_stop(self.process.pid))
        return _submitit().helpers.DelayedSubmission(Work(self.task))


def _stop(pid: int) -> int:
    """SIGTERM, then SIGKILL; the exit code. We are in a signal handler, and Popen's own lock may be held below it."""
    for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 10.0)):
        tell(pid, number)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            time.sleep(0.2)
    return -signal.SIGKILL


def job_of(task: Task) -> str | None:
    """The task's last job, as Slurm calls it: 12_3 is the fourth of array 12."""
    try:
        return json.loads(task.job.read_text())["job"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _parameters(slurm: Slurm, name: str, at_once: int | None) -> dict[str, Any]:
    asked = {
        "job_name": name,
        "time": slurm.time,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "gpus_per_node": slurm.gpus_per_node,
        "cpus_per_task": slurm.cpus_per_task,
        "mem": None if slurm.mem_gb is None else f"{int(slurm.mem_gb * 1024)}MB",
        "array_parallelism": at_once,
        "setup": list(slurm.setup) or None,
        "additional_parameters": dict(slurm.extra) or None,
        "signal_delay_s": int(GRACE) + 30,
        # the array's later tasks find the step's CPUs by themselves: srun no longer inherits --cpus-per-task
        "srun_args": [f"--cpus-per-task={slurm.cpus_per_task}"] if slurm.cpus_per_task else None,
    }
    return {key: value for key, value in asked.items() if value is not None}


def _queue() -> dict[str, str]:
    command = ["squeue", "--noheader", "--array", "--me", "--format", "%i|%T|%r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except FileNotFoundError:
        raise InputError(
            "squeue is not here: is this a machine of the cluster? --launcher local runs here"
        ) from None
    except (subprocess.SubprocessError, OSError) as error:
        said = str(getattr(error, "stderr", "") or error).strip()
        raise InputError(f"Slurm does not answer: {said}") from error
    rows = (line.strip().split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2)
    return {job: words for job, state, reason in rows if (words := _words(job, state, reason))}


def _words(job: str, state: str, reason: str) -> str:
    if state in ("RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"):
        return "running"
    if state in (
        "PENDING",
        "CONFIGURING",
        "REQUEUED",
        "REQUEUE_HOLD",
        "REQUEUE_FED",
        "SPECIAL_EXIT",
    ):
        return f"waiting: job {job} ({reason})"
    return ""  # it is over, or about to be


def _submitit() -> Any:
    if shutil.which("sbatch") is None:
        raise InputError(
            "sbatch is not here: is this a machine of the cluster? --launcher local runs here"
        )
    try:
        import submitit
    except ImportError:
        raise InputError("--launcher slurm needs submitit: pip install 'lorakit[slurm]'") from None
    return submitit


PLUGIN: Launcher = OnSlurm()
