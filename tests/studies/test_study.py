"""A study on this machine, with a stand-in for `lorakit train` that takes no time, fails, or goes
on and on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

import pytest

from lorakit.studies.choice import trial_of
from lorakit.studies.launchers import launchers
from lorakit.studies.plan import load_study
from lorakit.studies.plot import plot
from lorakit.studies.result import CellResult, StudyResult
from lorakit.studies.run import look, run_study, task_of
from lorakit.studies.tables import study_table
from tests.tiers import unit_or_slow


@pytest.fixture
def study(tmp_path, stand_in):
    """`study(text)`: a plan, whose runs are stand-ins, and where they go."""

    def write(text: str):
        (tmp_path / "mine.yaml").write_text(text)
        return load_study(str(tmp_path / "mine.yaml")), tmp_path / "runs"

    return write


def states(found: StudyResult) -> dict[str, str]:
    return {cell.label: cell.state for cell in found.cells}


FOUR = """\
about: Steps and rates
recipes: quickstart
grid: {train.max_steps: [12, 13], train.learning_rate: [1, 10]}
seeds: [0, 2]
"""


def test_a_run_that_fails_ends_no_other_and_is_tried_again(study):
    plan, runs = study(FOUR)
    seen: list[dict[str, str]] = []
    found = run_study(plan, runs, "local", 2, lambda now: seen.append(states(now)))
    assert list(states(found).values()) == ["done", "done", "failed", "failed"]
    assert {"running", "waiting"} <= {state for states in seen for state in states.values()}
    assert max(list(states.values()).count("running") for states in seen) == 2
    bad = found.cells[2]
    assert bad.note == "it cannot be done"
    assert bad.log is not None
    assert "Read the guide." in Path(bad.log).read_text()
    assert found.cells[0].scores == {
        0: {"validation": {"accuracy": 1.0}},
        2: {"validation": {"accuracy": 3.0}},
    }
    again = run_study(plan, runs, "local", 1, lambda now: None)
    assert [cell.attempts for cell in again.cells] == [1, 1, 2, 2]
    assert look(plan, runs) == again
    folder = runs / "mine"
    assert StudyResult.read(folder / "study.json") == again
    assert {path.name for path in folder.iterdir()} == {
        "cells",
        "study.json",
        "study.md",
        "scores.svg",
        "report.html",
    }
    xml.etree.ElementTree.parse(folder / "scores.svg")
    assert "2.00 ± 1.41" in (folder / "study.md").read_text()


def test_what_is_done_is_done_whoever_did_it(study):
    plan, runs = study("recipes: quickstart\ngrid: {train.learning_rate: [1, 10]}\nseeds: [0]\n")
    subprocess.run(task_of(plan.cells[1], plan, runs).command, check=True, timeout=60)
    assert list(states(look(plan, runs)).values()) == ["waiting", "done"]
    found = run_study(plan, runs, "local", 2, lambda now: None)
    assert [cell.attempts for cell in found.cells] == [1, 0]


def test_a_seed_more_is_a_run_more(study):
    plan, runs = study("recipes: quickstart\nseeds: [0]\n")
    assert states(run_study(plan, runs, "local", 1, lambda now: None)) == {"quickstart": "done"}
    plan, runs = study("recipes: quickstart\nseeds: [0, 1]\n")
    [cell] = look(plan, runs).cells
    assert (cell.state, list(cell.scores)) == ("waiting", [0])


def test_a_finished_seed_is_read_again_only_after_a_change(study, monkeypatch):
    plan, runs = study("recipes: quickstart\nset: {train.max_steps: 12}\nseeds: [0, 1]\n")
    run_study(plan, runs, "local", 1, lambda now: None)
    read: list[str] = []
    monkeypatch.setattr("lorakit.studies.run.intact_seed", lambda seed: read.append(seed.name))
    [cell] = look(plan, runs).cells
    assert (read, len(cell.scores)) == ([], 2)
    (Path(cell.run) / "seed1" / "adapter" / "adapter_config.json").write_text("{}")
    assert len(look(plan, runs).cells[0].scores) == 1
    assert read == ["seed1"]


class TestStopping:
    TWO = "recipes: quickstart\ngrid: {train.max_steps: [99, 12]}\n"

    @pytest.fixture
    def running(self, study, tmp_path):
        """The study in a process of its own, its first run under way."""
        plan, runs = study(self.TWO)
        code = (
            "import sys, lorakit.studies.run as s, lorakit.cli\n"
            f"s.PROGRAM = (sys.executable, {str(tmp_path / 'stand_in.py')!r})\n"
            f"sys.argv = ['lorakit', 'study', {str(plan.path)!r}, '--runs', {str(runs)!r}, "
            "'--jobs', '1']\n"
            "lorakit.cli.main()\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while not list(runs.glob("*/begun")):
            assert time.monotonic() < until
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.1)
        yield process, plan, runs
        process.kill()
        process.wait()

    @pytest.mark.parametrize(
        "numbers",
        unit_or_slow(
            [
                [signal.SIGINT],
                [signal.SIGTERM],
                [signal.SIGTERM] * 40,
                [signal.SIGINT, *[signal.SIGTERM] * 39],
            ],
            [[signal.SIGINT, *[signal.SIGTERM] * 39]],
        ),
    )
    def test_runs_are_told_first_and_go_on_later(self, running, numbers):
        process, plan, runs = running
        assert list(states(look(plan, runs)).values()) == ["running", "waiting"]
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.05)
        said = process.communicate(timeout=30)[1].decode()
        assert process.returncode == 130, said
        assert said.rstrip().splitlines()[-1].startswith("stopped; ")
        assert "Traceback" not in said
        assert next(runs.glob("*/checkpoint")).read_text() == "whole"
        assert list(states(look(plan, runs)).values()) == ["stopped", "waiting"]
        found = run_study(plan, runs, "local", 1, lambda now: None)
        assert states(found) == {"max_steps=99": "done", "max_steps=12": "done"}
        assert [cell.attempts for cell in found.cells] == [2, 1]

    def test_one_launcher_at_a_time(self, running, lorakit_cli):
        _, plan, runs = running
        done = lorakit_cli("study", plan.path, "--runs", runs)
        assert done.code == 2
        assert "another process runs the study mine in" in done.err
        for folder in runs.glob("*/begun"):
            folder.with_name("checkpoint").touch()  # lets it end

    @pytest.mark.skipif(
        sys.platform != "linux", reason="only Linux tells a process that its parent died"
    )
    def test_a_launcher_that_is_killed_leaves_no_run_behind(self, running):
        process, plan, runs = running
        process.kill()
        process.wait()
        until = time.monotonic() + 20
        while not list(runs.glob("*/checkpoint")):  # its run was told
            assert time.monotonic() < until
            time.sleep(0.1)
        [stopped, _] = look(plan, runs).cells
        assert stopped.state == "stopped"
        assert "killed" in stopped.note


def test_cores_and_gpus_are_shared_out(study, monkeypatch):
    plan, runs = study("recipes: quickstart\ngrid: {train.max_steps: [10, 11, 12]}\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7,8")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)), raising=False)
    run_study(plan, runs, "local", 3, lambda now: None)
    seen = [json.loads(file.read_text()) for file in runs.glob("*/environment.json")]
    assert {env["OMP_NUM_THREADS"] for env in seen} == {"2"}
    assert sorted(env["CUDA_VISIBLE_DEVICES"] for env in seen) == ["4,8", "5", "7"]


class TestTheVerb:
    def test_says_how_it_stands_and_starts_nothing(self, study, lorakit_cli):
        plan, runs = study(FOUR)
        done = lorakit_cli("study", plan.path, "--runs", runs, "--status", "--json")
        assert (done.code, done.json["counts"]) == (0, {"waiting": 4})
        assert not runs.exists()

    def test_tables_exit_code_and_the_page_as_it_stands_now(self, study, lorakit_cli):
        plan, runs = study(FOUR)
        done = lorakit_cli(
            "study", plan.path, "--runs", runs, "--format", "markdown", "--jobs", "4"
        )
        assert done.code == 1
        assert "| 12 | 10 | 11.00 ± 1.41 | 2 |" in done.out
        assert "mine: 2 done, 2 failed" in done.err
        assert "it cannot be done (log: " in done.err
        done = lorakit_cli("study", plan.path, "--runs", runs, "--status", "--json")
        assert done.code == 0
        assert done.json["counts"] == {"done": 2, "failed": 2}
        assert [cell["state"] for cell in done.json["cells"]] == [
            "done",
            "done",
            "failed",
            "failed",
        ]
        page = runs / "mine" / "report.html"
        before = page.read_text()
        for text in (
            "2 of 4 done",
            "2 failed",
            "it cannot be done",
            "max_steps=12, learning_rate=10",
            "11.00 ± 1.41",
        ):
            assert text in before, text
        page.unlink()
        seed = next(cell for cell in look(plan, runs).cells if cell.state == "done").run
        (Path(seed) / "seed0" / "result.json").unlink()
        done = lorakit_cli("report", runs / "mine", "--json")
        assert (done.code, done.json["counts"]) == (0, {"done": 1, "failed": 2, "waiting": 1})
        assert "1 of 4 done" in page.read_text()
        assert page.read_text() != before
        plan.path.unlink()
        assert lorakit_cli("report", runs / "mine").code == 0, "without its file, as it stood"

    def test_a_study_with_overrides_is_drawn_again_as_it_is(self, study, lorakit_cli):
        plan, runs = study("recipes: quickstart\nset: {train.max_steps: 12}\nseeds: [0]\n")
        given = ("train.learning_rate=3", "--runs", runs)
        done = lorakit_cli("study", plan.path, *given, "--json")
        assert done.json["cells"][0]["scores"] == {"0": {"validation": {"accuracy": 3.0}}}
        again = lorakit_cli("report", runs / "mine", "--json")
        assert again.json == done.json
        assert StudyResult.read(runs / "mine" / "study.json").overrides == given[:1]

    def test_no_such_launcher(self, study, lorakit_cli):
        plan, runs = study(FOUR)
        done = lorakit_cli("study", plan.path, "--runs", runs, "--launcher", "slrum")
        assert done.code == 2
        assert "'slrum'" in done.err
        assert "did you mean 'slurm'?" in done.err

    def test_slurm_where_it_is_not(self, study, lorakit_cli, monkeypatch, tmp_path):
        plan, runs = study(FOUR)
        monkeypatch.setenv("PATH", str(tmp_path))
        done = lorakit_cli("study", plan.path, "--runs", runs, "--launcher", "slurm")
        assert done.code == 2
        assert "sbatch is not installed on this machine" in done.err

    def test_a_study_from_a_cluster_goes_on_elsewhere(self, study, monkeypatch, tmp_path, caplog):
        plan, runs = study("recipes: quickstart\nset: {train.max_steps: 12}\nseeds: [0]\n")
        task = task_of(plan.cells[0], plan, runs)
        task.job.parent.mkdir(parents=True)
        task.job.write_text('{"job": "12_0"}')
        monkeypatch.setenv("PATH", str(tmp_path))
        assert look(plan, runs).counts() == {"stopped": 1}
        assert run_study(plan, runs, "local", 1, lambda now: None).counts() == {"done": 1}
        assert [record.name for record in caplog.records] == ["lorakit.studies.launchers.slurm"]


class TestSlurmWithStandIns:
    """sbatch and squeue are scripts; `test_slurm.py` has the real ones."""

    @pytest.fixture
    def queue(self, tmp_path, monkeypatch) -> Path:
        """What squeue says; `submitted` beside it has a line per sbatch."""
        pytest.importorskip("submitit")
        programs, queue = tmp_path / "bin", tmp_path / "queue"
        programs.mkdir()
        queue.touch()
        said = {
            "sbatch": f"echo $1 >> {tmp_path}/submitted; echo Submitted batch job 7",
            "srun": "true",
            "squeue": f"cat {queue}",
        }
        for name, body in said.items():
            (programs / name).write_text(f"#!/bin/sh\n{body}\n")
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        return queue

    def test_one_array_and_nothing_twice(self, study, queue, lorakit_cli):
        plan, runs = study(
            "recipes: quickstart\ngrid: {train.max_steps: [10, 12]}\n"
            "slurm: {partition: gpu, time: 90, gpus_per_node: 2, cpus_per_task: 3, mem_gb: 1.5, "
            "setup: [module load x], extra: {nice: 5}}\n"
        )
        done = lorakit_cli(
            "study", plan.path, "--runs", runs, "--launcher", "slurm", "--jobs", 1, "--json"
        )
        assert done.code == 0
        script = runs / "mine" / "cells" / "slurm" / "7_submission.sh"
        text = script.read_text()
        for option in (
            "array=0-1%1",
            "partition=gpu",
            "time=90",
            "gpus-per-node=2",
            "cpus-per-task=3",
            "mem=1536MB",
            "nice=5",
            "job-name=mine",
            "signal=USR2@105",
        ):
            assert f"#SBATCH --{option}\n" in text, text
        assert "\nmodule load x\n" in text
        queue.write_text("7_0|RUNNING|None\n7_1|PENDING|Priority\n8|RUNNING|None\n")
        again = lorakit_cli("study", plan.path, "--runs", runs, "--launcher", "slurm", "--json")
        assert [(cell["state"], cell["note"]) for cell in again.json["cells"]] == [
            ("running", ""),
            ("waiting", "job 7_1 (Priority)"),
        ]
        assert len(queue.with_name("submitted").read_text().splitlines()) == 1
        queue.write_text("")
        left = lorakit_cli("study", plan.path, "--runs", runs, "--status", "--json")
        assert {(cell["state"], cell["note"]) for cell in left.json["cells"]} == {
            ("stopped", "its job left the queue before it started")
        }
        queue.with_name("submitted").unlink()
        here = run_study(plan, runs, "local", 2, lambda now: None)  # a study may go on elsewhere
        assert here.counts() == {"done": 2}
        assert not queue.with_name("submitted").exists()

    def test_the_choice_waits_for_a_trial_that_is_queued_again(self, study, queue):
        plan, runs = study(
            "recipes: quickstart\nset: {train.max_steps: 12}\nseeds: [0, 1]\n"
            "grid: {train.learning_rate: [1, 10]}\nchoose: train.learning_rate\n"
        )
        first, second = (task_of(trial_of(cell), plan, runs) for cell in plan.cells)
        subprocess.run(second.command, check=True, timeout=60)
        first.stem.parent.mkdir(parents=True)
        first.begin()
        first.end(1)
        assert [cell.chosen for cell in look(plan, runs).cells] == [False, True]
        first.job.write_text('{"job": "7_0"}')
        queue.write_text("7_0|PENDING|Priority\n")
        assert [cell.chosen for cell in look(plan, runs).cells] == [None, None]
        assert look(plan, runs).counts() == {"done": 1, "waiting": 1}

    def test_what_sbatch_says_is_passed_on(self, study, queue, lorakit_cli):
        plan, runs = study(FOUR)
        (queue.parent / "bin" / "sbatch").write_text(
            "#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n"
        )
        done = lorakit_cli("study", plan.path, "--runs", runs, "--launcher", "slurm")
        assert done.code == 2
        assert "Slurm did not take the jobs: " in done.err
        assert "invalid partition" in done.err
        assert look(plan, runs).counts() == {"waiting": 4}

    def test_a_job_whose_time_is_up_tells_its_run_and_comes_again(self, study, queue):
        from lorakit.studies.launchers.slurm import Work

        plan, runs = study("recipes: quickstart\nset: {train.max_steps: 99}\n")
        task = task_of(plan.cells[0], plan, runs)
        task.stem.parent.mkdir(parents=True)
        work = Work(task)
        work.process = task.start()
        until = time.monotonic() + 60
        while not list(runs.glob("*/begun")):
            assert time.monotonic() < until
            time.sleep(0.1)
        os.kill(
            work.process.pid, signal.SIGUSR2
        )  # Slurm sends it to the run too, which must not mind
        later = work.checkpoint()
        assert next(runs.glob("*/checkpoint")).read_text() == "whole"
        assert (task.record().code, task.record().error) == (143, "told to stop")
        assert later.function.task == task
        later.function()
        [cell] = look(plan, runs).cells
        assert (cell.state, cell.attempts) == ("done", 2)


def test_every_launcher_keeps_the_contract(study):
    plan, runs = study(FOUR)
    assert launchers.names() == ["inline", "local", "slurm"]
    for name in launchers.names():
        launcher = launchers.get(name)
        assert launcher.alive([task_of(cell, plan, runs) for cell in plan.cells]) == {}


def made(axes: tuple[str, ...], points: list[dict]) -> StudyResult:
    cells = [
        CellResult(
            label=str(i),
            recipe="r",
            overrides=(),
            point=point,
            run=f"runs/{i}",
            log=None,
            state="done",
            metric=("validation", "f1"),
            seeds=(0, 1),
            scores={s: {"validation": {"f1": 10.0 * i + s}} for s in (0, 1)},
        )
        for i, point in enumerate(points)
    ]
    return StudyResult(name="s", file="s.yaml", axes=axes, cells=tuple(cells))


@pytest.mark.parametrize(
    ("axes", "points", "drawn"),
    [
        (("r",), [{"r": 1}, {"r": 8}, {"r": 64}], True),
        (("cell",), [{"cell": "q"}, {"cell": "q, v"}], True),
        (("cell", "r"), [{"cell": "a", "r": 1}, {"cell": "b", "r": 1}], True),
        (("targets",), [{"targets": ["query"]}, {"targets": ["query", "value"]}], True),
        ((), [{}], False),
        (("a", "b", "c"), [{"a": 1, "b": 2, "c": 3}], False),
    ],
)
def test_a_picture_of_one_or_two_axes(axes, points, drawn):
    found = plot(made(axes, points))
    assert (found is not None) == drawn
    if found is not None:
        assert found.svg.startswith("<svg")
        assert found.title.startswith("s: f1 over")


def test_the_table_has_mean_and_spread_of_the_seeds_that_are_there():
    found = made(("r",), [{"r": 1}, {"r": 2}])
    half = found.cells[1].model_copy(update={"scores": {1: {"validation": {"f1": 7.0}}}})
    table = study_table(found.model_copy(update={"cells": (found.cells[0], half)}))
    assert table.header == ("r", "f1", "n")
    assert table.rows == (("1", "0.50 ± 0.71", "2"), ("2", "7.00", "1"))
