"""A study on a real Slurm: Debian's packages, one node, all daemons in a temporary folder and gone
afterwards."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.commands import free_port

SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
DAEMONS = ("munged", "slurmctld", "slurmd")
ABSENT = [
    name
    for name in (*DAEMONS, "sbatch", "srun", "squeue", "scancel", "setpriv")
    if shutil.which(name, path=SBIN) is None
]

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        bool(ABSENT), reason=f"no {', '.join(ABSENT)} here: apt-get install slurm-wlm munge"
    ),
]

CONF = """\
ClusterName=lorakit
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={slurmd}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2
KillWait=10
MinJobAge=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def wait_for(true: Callable[[], object], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what}: not within {seconds} s"
        time.sleep(0.5)


def of_this_cluster(conf: Path) -> list[int]:
    """Ids of all processes that have its configuration in their environment: jobs and their steps,
    and the daemons."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if (
                f"SLURM_CONF={conf}".encode() in file.read_bytes()
                and int(file.parent.name) != os.getpid()
            ):
                found.append(int(file.parent.name))
    return found


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Path]:
    """A cluster of this machine. SLURM_CONF names it as long as it lives."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf, key = folder / "slurm.conf", folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    folder.chmod(0o755)
    conf.write_text(
        CONF.format(
            host=socket.gethostname().split(".")[0],
            user=getpass.getuser(),
            folder=folder,
            ctld=free_port(),
            slurmd=free_port(),
        )
    )
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": SBIN}
    commands = [
        [
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munged.seed",
        ],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D"],
    ]
    daemons: list[subprocess.Popen[bytes]] = []
    before = os.environ.get("SLURM_CONF")
    try:
        for command in commands:
            out = (folder / f"{command[0]}.out").open("wb")
            told = [
                "setpriv",
                "--pdeathsig",
                "TERM",
                *command,
            ]  # they end with pytest, even where that is killed
            daemons.append(
                subprocess.Popen(
                    told, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
                )
            )
            if command[0] == "munged":
                wait_for((folder / "munge.socket").exists, 20, "munged")
        os.environ["SLURM_CONF"] = str(conf)
        wait_for(lambda: _idle(environment), 60, f"a node that is idle, see {folder}")
        yield folder
    finally:
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", "--me"], env=environment, timeout=20, check=False)
            wait_for(lambda: not say("squeue", "-h"), 30, "an empty queue")
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(15)
        for pid in {*of_this_cluster(conf), *(d.pid for d in daemons if d.poll() is None)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.environ.pop("SLURM_CONF", None)
        if before is not None:
            os.environ["SLURM_CONF"] = before
    wait_for(lambda: not of_this_cluster(conf), 10, "no process of the cluster left")


def _idle(environment: dict[str, str]) -> bool:
    done = subprocess.run(
        ["sinfo", "-h", "-o", "%t"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "idle" in done.stdout


def say(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


STUDY = """\
about: Four runs on a real cluster
recipes: quickstart
set: {data.limit.validation: 32, train.global_batch_size: 8}
cells:
  short: {train.max_steps: 3}
  fails: {train.max_steps: 4, task.train: nowhere.jsonl}
  cancelled: {train.epochs: 4}
  requeued: {train.epochs: 5}
slurm: {time: 10, cpus_per_task: 1}
"""


def test_a_study_on_a_real_cluster(slurm, tmp_path, lorakit_cli):
    """One run ends well, one fails, one is cancelled and one requeued: the others go on, and a
    second call ends it."""
    pytest.importorskip("submitit")
    file, runs = tmp_path / "four.yaml", tmp_path / "runs"
    file.write_text(STUDY)

    shown = []

    def study(*options: str) -> dict:
        done = lorakit_cli("study", file, "--launcher", "slurm", "--runs", runs, "--json", *options)
        shown.append(done.err)
        return {cell["label"]: cell for cell in json.loads(done.out)["cells"]}

    def steps(cell: dict) -> int:
        journal = Path(cell["run"]) / "seed0" / "metrics.jsonl"
        return journal.read_text().count('"step"') if journal.is_file() else 0

    queued = study()
    assert set(queued) == {"short", "fails", "cancelled", "requeued"}
    assert {cell["state"] for cell in queued.values()} <= {"waiting", "running"}
    jobs = {
        label: json.loads(
            Path(runs / "four" / "cells" / f"{Path(cell['run']).name}.job").read_text()
        )["job"]
        for label, cell in queued.items()
    }
    assert len({job.split("_")[0] for job in jobs.values()}) == 1, "one array"
    shown += [say("sinfo"), say("squeue", "--array")]

    wait_for(lambda: steps(queued["cancelled"]), 120, "the third run trains")
    again = study()  # while it runs: nothing is queued a second time
    assert again["cancelled"]["state"] == "running"
    assert len(say("squeue", "-h", "--array").splitlines()) <= 4
    subprocess.run(["scancel", jobs["cancelled"]], check=True, timeout=60)
    wait_for(lambda: steps(queued["requeued"]), 120, "the fourth run trains")
    # as Slurm does when the time is up: the run is told to stop, and the job queues itself again
    subprocess.run(["scancel", "--signal=USR2", jobs["requeued"]], check=True, timeout=60)
    wait_for(
        lambda: (
            say("squeue", "-h", "--array", "-t", "PENDING", "-o", "%i") == f"{jobs['requeued']}\n"
        ),
        100,
        "queued",
    )
    assert study("--status")["requeued"]["note"].startswith(f"job {jobs['requeued']}")
    time.sleep(
        3
    )  # within the second of its end Slurm refuses the job's old credential, and calls it failed
    # Slurm would wait for two minutes
    subprocess.run(
        ["scontrol", "update", f"jobid={jobs['requeued']}", "StartTime=now"], check=True, timeout=60
    )

    wait_for(lambda: not say("squeue", "-h"), 300, "all jobs end")
    ended = study("--status")
    assert {label: cell["state"] for label, cell in ended.items()} == {
        "short": "done",
        "fails": "failed",
        "cancelled": "stopped",
        "requeued": "done",
    }
    assert "nowhere.jsonl" in ended["fails"]["note"]
    assert ended["fails"]["note"] in Path(ended["fails"]["log"]).read_text()
    assert ended["requeued"]["attempts"] == 2
    assert ended["short"]["attempts"] == 1

    assert study()["cancelled"]["state"] in ("waiting", "running")
    wait_for(lambda: not say("squeue", "-h"), 300, "the second call ends")
    whole = study("--status")
    assert (whole["cancelled"]["state"], whole["cancelled"]["attempts"]) == ("done", 2)
    assert whole["short"]["attempts"] == 1, "what was done is not run again"
    assert whole["fails"]["state"] == "failed"
    assert (runs / "four" / "study.md").is_file()
    print("\n".join(shown))


def test_the_script_for_several_machines(slurm, tmp_path, lorakit_cli):
    """On the one machine that there is, with two processes."""
    small = [
        "train.max_steps=2",
        "data.limit={train: 64, validation: 16}",
        "train.global_batch_size=16",
    ]
    options = [
        "--nodes",
        "1",
        "--processes-per-node",
        "2",
        "--cpu",
        "--slurm",
        "--runs",
        tmp_path / "runs",
    ]
    done = lorakit_cli("launch-command", "quickstart", *small, *options)
    script = tmp_path / "job.sh"
    script.write_text(done.out)
    said = subprocess.run(
        ["sbatch", "--wait", script], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert said.returncode == 0, "".join(log.read_text() for log in tmp_path.glob("*.log"))
    [environment] = (tmp_path / "runs").glob("*/seed0/environment.json")
    assert json.loads(environment.read_text())["processes"] == 2
