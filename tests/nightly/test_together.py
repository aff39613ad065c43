"""More than one at a time: two commands in one folder, the runs of a study, processes that share a
model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from tests.nightly.child import Child, Done
from tests.nightly.disturbed import LEAST, Command, judge, left_over, verdict
from tests.nightly.plan import Silent, Tried, count, random_of
from tests.nightly.test_kills import training
from tests.verbs.test_crash import RECIPE, whole
from tests.verbs.test_processes import predictions, steps

CPU = os.environ | {"OMP_NUM_THREADS": "1"}
SHORT = [
    *RECIPE,
    "train.epochs=2",
    "evaluate.every_steps=8",
    "train.checkpoint={every_steps: 3, keep_last: 2}",
]
PLAIN = [*SHORT, "method.dropout=0"]
"""Without random numbers in a step, so that processes of another number make the same steps."""


def test_two_commands_in_one_folder(tmp_path: Path) -> None:
    """One trains, and the other is refused, or finds what the first has made."""
    command = training()
    command.learn(tmp_path / "whole")
    with Tried("two commands in one folder") as tried:
        for name, random in tried.cases(6):
            folder = tmp_path / name[-3:]
            children = [command.begin(folder)]
            time.sleep(random.choice((0.0, 0.0, random.uniform(0.0, command.seconds))))
            children.append(command.begin(folder))
            done = [child.end(LEAST) for child in children]
            codes = sorted(one.code for one in done)
            refused = [one for one in done if one.code == 2]
            if codes not in ([0, 0], [0, 2]) or any(
                "another process" not in one.err for one in refused
            ):
                tried.fault(
                    f"they end with {codes}", name, " | ".join(one.err[-150:] for one in done)
                )
            else:
                verdict(tried, command, folder, next(one for one in done if one.code == 0), name)


# studies


def study_of(folder: Path, *targets: str, steps: int = 12) -> Path:
    """A study of one run per target."""
    file = folder / "mine.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    limits = {
        "data.limit": {"train": 48, "validation": 16},
        "train.max_steps": steps,
        "train.global_batch_size": 8,
    }
    often = {"train.checkpoint": {"every_steps": 2}}
    plan = {
        "about": "x",
        "recipes": "quickstart",
        "set": limits | often | {"method.dropout": 0.1, "expect": {}},
    }
    file.write_text(
        yaml.safe_dump(plan | {"grid": {"method.targets": [[target] for target in targets]}})
    )
    return file


def cells_of(folder: Path) -> dict[str, Any] | None:
    """What the runs of a study gave; None: not all are whole."""
    runs = sorted(path for path in (folder / "runs").glob("quickstart-*") if path.is_dir())
    if not runs or not all((run / "result.json").is_file() for run in runs):
        return None
    return {run.name: _alone(run) for run in runs}


def _alone(run: Path) -> Any:
    found = whole(Only(run))
    return found


class Only:
    """A run folder, where a folder of one run is asked for."""

    def __init__(self, run: Path):
        self.run = run

    def glob(self, pattern: str) -> Iterator[Path]:
        return self.run.glob(pattern.removeprefix("*/"))


def descendants(pid: int) -> list[int]:
    """Of a process that lives, the nearest first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, level = [], [pid]
    while level:
        level = [child for one in level for child in children.get(one, ())]
        found += level
    return found


def test_study_that_is_killed(tmp_path: Path) -> None:
    """The command itself, or one of the runs that it has started."""
    command = Command(
        lambda folder: ["study", study_of(folder, "query", "value"), "--runs", "runs", "--jobs", 2],
        cells_of,
        "study:",
    )
    begun = time.monotonic()
    assert command.begin(tmp_path / "whole").end(LEAST).code == 0
    command.seconds, command.wanted = time.monotonic() - begun, cells_of(tmp_path / "whole")
    assert command.wanted is not None
    with Tried("kill -9 in a study") as tried:
        kills, number = 0, 0
        while kills < count(10):
            random = random_of("study", number)
            most = min(random.randrange(1, 4), count(10) - kills)
            kills += _killed_study(
                tried, command, tmp_path / str(number), random, most, f"study:{number}"
            )
            number += 1


def _killed_study(
    tried: Tried, command: Command, folder: Path, random: Random, most: int, name: str
) -> int:
    for kills in range(most):
        child = command.begin(folder)
        child.wait_until(random.uniform(0.1, 1.0) * command.seconds)
        pid = child.process.pid
        assert pid is not None
        cells = descendants(pid)
        if cells and random.random() < 0.5:
            os.kill(random.choice(cells), signal.SIGKILL)
        else:
            child.send(signal.SIGKILL)
        done = child.end(LEAST)
        if not judge(tried, command, folder, done, name):
            return kills + 1
    verdict(tried, command, folder, command.begin(folder).end(LEAST), name, most)
    return most


def test_study_with_a_member_that_fails(tmp_path: Path) -> None:
    """The others are trained, the exit code says it, and the same command trains no whole one
    again."""
    file = study_of(tmp_path, "query", "no_such_module", "value", steps=4)
    line = ["study", file, "--runs", "runs", "--jobs", 2, "--json"]
    with Tried("a study with a failing member") as tried:
        first = Child(line, tmp_path).begin().end(LEAST)
        before = {
            path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/quick*/result.json")
        }
        second = Child(line, tmp_path).begin().end(LEAST)
        after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/quick*/result.json")}
        for name, done in (("first", first), ("again", second)):
            states = sorted(cell["state"] for cell in done.json["cells"]) if done.out else []
            if (done.code, states) != (1, ["done", "done", "failed"]):
                tried.fault(f"it ends with {done.code}, {states}", name, done.err[-300:])
            else:
                tried.outcome("two done, one failed, exit code 1")
        if len(before) != 2 or before != after:
            tried.fault("a whole run was trained again", "again")


# processes


def started(folder: Path, processes: int, recipe: list[str]) -> subprocess.Popen[str]:
    line = [
        sys.executable,
        "-m",
        "lorakit",
        "train",
        *recipe,
        "--cpu",
        "--runs",
        str(folder / "runs"),
    ]
    more = ["--processes", str(processes)] if processes > 1 else []
    return subprocess.Popen(
        [*line, *more], env=CPU, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=LEAST)
    return Done(process.returncode, out, err)


def ranks(pid: int) -> list[int]:
    """The processes that train, of a command."""
    found = []
    for child in descendants(pid):
        try:
            environ = Path(f"/proc/{child}/environ").read_bytes()
        except OSError:
            continue
        if b"\0RANK=" in b"\0" + environ:
            found.append(child)
    return found


def result_of(folder: Path) -> Any:
    return whole(folder / "runs") if list(folder.glob("runs/*/result.json")) else None


def test_one_of_two_processes_is_killed(tmp_path: Path) -> None:
    command = Command(lambda folder: [], result_of, "checks passed")
    begun = time.monotonic()
    done = ended(started(tmp_path / "whole", 2, SHORT))
    command.seconds = time.monotonic() - begun
    assert done.code == 0, done.err
    command.wanted = result_of(tmp_path / "whole")
    with Tried("kill -9 of one of two processes") as tried:
        kills, number = 0, 0
        while kills < count(10):
            random = random_of("one of two", number)
            most = min(random.randrange(1, 5), count(10) - kills)
            kills += _one_killed(
                tried, command, tmp_path / str(number), random, most, f"one of two:{number}"
            )
            number += 1


def _one_killed(
    tried: Tried, command: Command, folder: Path, random: Random, most: int, name: str
) -> int:
    for kills in range(most):
        process = started(folder, 2, SHORT)
        moment = time.monotonic() + random.uniform(0.3, 1.0) * command.seconds
        while process.poll() is None and (time.monotonic() < moment or len(ranks(process.pid)) < 2):
            time.sleep(0.05)
        if alive := ranks(process.pid):
            os.kill(random.choice(alive), signal.SIGKILL)
        done = ended(process)
        if not judge(tried, command, folder, done, name):
            return kills + 1
        if done.code not in (0, 137):
            tried.fault(
                f"a process was killed, and it ends with {done.code}", name, done.err[-300:]
            )
            return kills + 1
    verdict(tried, command, folder, ended(started(folder, 2, SHORT)), name, most)
    return most


@pytest.mark.parametrize(
    "numbers", [(1, 2, 4), (4, 2, 1), (2, 4, 2)], ids=lambda numbers: "-".join(map(str, numbers))
)
def test_resumed_by_another_number_of_processes(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """Stopped by SIGTERM in between; the losses, predictions and adapter are those of one process,
    but for last bits."""
    alone = ended(started(tmp_path / "whole", 1, PLAIN))
    assert alone.code == 0, alone.err
    with Tried(f"resumed by other numbers of processes, {numbers}") as tried:
        for number in numbers[:-1]:
            _stop_at_a_step(started(tmp_path / "several", number, PLAIN))
        done = ended(started(tmp_path / "several", numbers[-1], PLAIN))
        assert done.code == 0, done.err
        try:
            refuse_far(
                *(
                    next((tmp_path / name / "runs").glob("quick*/seed0"))
                    for name in ("whole", "several")
                )
            )
        except Silent as error:
            tried.fault(f"silent: {error}", str(numbers))
        else:
            tried.outcome(
                "the same result within 1e-4"
                if not left_over(tmp_path)
                else "the same, and a temporary"
            )


def _stop_at_a_step(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for said in process.stderr:
        if said.startswith("step "):
            process.send_signal(signal.SIGTERM)
            break
    done = ended(process)
    assert done.code in (143, 0), done.err


def refuse_far(one: Path, several: Path) -> None:
    losses = zip(steps(one, "loss"), steps(several, "loss"), strict=True)
    if (far := max(abs(a / b - 1) for a, b in losses)) > 1e-4:
        raise Silent(f"a loss differs by {far:.1e}")
    if predictions(one).keys() != predictions(several).keys():
        raise Silent("other files of predictions")
    a, b = (load_file(seed / "adapter" / "adapter_model.safetensors") for seed in (one, several))
    if (far := max(float((a[name] - b[name]).abs().max()) for name in a)) > 1e-3:
        raise Silent(f"a number of the adapter differs by {far:.1e}")
