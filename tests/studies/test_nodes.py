"""Several machines: the lines and scripts that are printed, and two "machines" with names of their
own on loopback."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lorakit.runs.lines import read_lines
from lorakit.studies.machines import Machines
from tests.commands import free_port

SMALL = [
    "train.max_steps=6",
    "data.limit={train: 64, validation: 30}",
    "train.global_batch_size=16",
]


def test_the_line_is_that_of_every_machine(lorakit_cli):
    done = lorakit_cli(
        "launch-command",
        "glue_mnli",
        "seeds=[0, 1]",
        "--nodes",
        2,
        "--processes-per-node",
        4,
        "--address",
        "gpu7",
        "--runs",
        "/share/my runs",
    )
    assert done.code == 0
    assert shlex.split(done.out) == [
        "torchrun",
        "--nnodes=2",
        "--nproc-per-node=4",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint",
        "gpu7:29500",
        "--rdzv-id",
        "lorakit-glue_mnli",
        "-m",
        "lorakit",
        "train",
        "glue_mnli",
        "seeds=[0, 1]",
        "--runs",
        "/share/my runs",
    ]
    assert "on each of the 2 machines" in done.err


@pytest.mark.parametrize("options", [("--slurm", "--address", "gpu7"), ("--minutes", 90)])
def test_an_option_without_an_effect_is_refused(lorakit_cli, options):
    done = lorakit_cli("launch-command", "quickstart", *options)
    assert (done.code, done.out) == (2, "")


def test_a_batch_that_cannot_be_shared_is_refused_before_it_waits_in_a_queue(lorakit_cli):
    done = lorakit_cli("launch-command", "quickstart", "--nodes", 3, "--slurm")
    assert (done.code, done.out) == (2, "")
    assert "train.global_batch_size 32 cannot be shared by 3 processes" in done.err


def test_the_script_is_a_script_and_quotes_what_was_given(tmp_path):
    script = Machines(2, 8).script(
        "mine", ["my recipe.yaml", "seeds=[0, 1]", "about=$(touch x)"], 90
    )
    assert "#SBATCH --nodes=2\n" in script
    assert "#SBATCH --gpus-per-node=8\n" in script
    assert "#SBATCH --time=90\n" in script
    # with stand-ins for Slurm's programs, srun prints the arguments that torchrun would get
    for name, body in {"scontrol": "echo nodeA; echo nodeB", "srun": 'printf "%s\\n" "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_JOB_ID": "123",
        "SLURM_JOB_NODELIST": "node[A-B]",
    }
    done = subprocess.run(
        ["bash", "-eu"], input=script, env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "--kill-on-bad-exit=1",
        "torchrun",
        "--nnodes=2",
        "--nproc-per-node=8",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint",
        "nodeA:20123",
        "--rdzv-id",
        "123",
        "-m",
        "lorakit",
        "train",
        "my recipe.yaml",
        "seeds=[0, 1]",
        "about=$(touch x)",
    ]
    assert not (tmp_path / "x").exists()


def can_rename() -> bool:
    """Whether a process may have a host name of its own here."""
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(
            ["unshare", "--uts", "true"], capture_output=True, timeout=10, check=False
        ).returncode
        == 0
    )


@pytest.mark.nightly
def test_two_machines_have_the_losses_of_one_process(tmp_path, lorakit_cli):
    """Two torchrun agents, each with its address and, where it may, its host name; gloo on
    loopback."""
    line = lorakit_cli(
        "launch-command",
        "quickstart",
        *SMALL,
        "--nodes",
        2,
        "--address",
        f"127.0.0.1:{free_port()}",
        "--runs",
        tmp_path / "two",
        "--cpu",
    ).out.strip()
    assert line.startswith("ACCELERATE_USE_CPU=true torchrun ")
    torchrun = f"{shlex.quote(sys.executable)} -m torch.distributed.run"
    renamed = can_rename()
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    agents = []
    for i, name in enumerate(("node-a", "node-b")):
        own = line.replace("torchrun ", f"exec {torchrun} --local-addr=127.0.0.{i + 1} ", 1)
        own = own.replace("ACCELERATE_USE_CPU=true exec", "export ACCELERATE_USE_CPU=true; exec")
        command = (
            ["unshare", "--uts", "sh", "-c", f"hostname {name}; {own}"]
            if renamed
            else ["sh", "-c", own]
        )
        log = (tmp_path / f"{name}.log").open("wb")
        agents.append(
            subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        )
    try:
        codes = [agent.wait(400) for agent in agents]
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, 9)
    said = "".join((tmp_path / f"{name}.log").read_text() for name in ("node-a", "node-b"))
    assert codes == [0, 0], said

    assert lorakit_cli("train", "quickstart", *SMALL, "--runs", tmp_path / "one", "--cpu").code == 0
    [two], [one] = (tmp_path / "two").glob("quickstart-*"), (tmp_path / "one").glob("quickstart-*")
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert len(losses(two)) == 6
    assert json.loads((two / "seed0" / "environment.json").read_text())["processes"] == 2
    assert ids(two) == ids(one)
    assert said.count("run: ") == 1, "one of them speaks"


def losses(run: Path) -> list[float]:
    return [
        event["loss"]
        for event in read_lines(run / "seed0" / "metrics.jsonl")
        if event["event"] == "step"
    ]


def ids(run: Path) -> list[str]:
    return [row["id"] for row in read_lines(run / "seed0" / "predictions" / "validation.jsonl")]
