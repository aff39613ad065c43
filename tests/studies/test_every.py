"""Studies with a cell for each plug-in, and the launcher that trains them in this process."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from lorakit.errors import InputError, LorakitError
from lorakit.inits import inits
from lorakit.methods import methods
from lorakit.optimizers import optimizers
from lorakit.studies.plan import load_study
from lorakit.studies.run import run_study
from lorakit.verbs import train as training

TWO = """\
recipes: quickstart
set:
  - train.max_steps=2
  - data.limit.train=32
  - data.limit.validation=8
  - "~expect"
grid: {method.r: [1, 2]}
launcher: inline
seeds: [0]
"""


@pytest.fixture
def two(tmp_path):
    (tmp_path / "two.yaml").write_text(TWO)
    return load_study(str(tmp_path / "two.yaml"))


def names_of(plan) -> set[str]:
    return {cell.label for cell in plan.cells} | {text.split(":")[0] for text in plan.left_out}


def test_each_plug_in_is_a_cell_of_the_smoke_study():
    names = names_of(load_study("family_smoke"))
    assert {*methods.names()} <= names
    # the defaults are the cell of LoRA
    assert {f"init {name}" for name in inits.names() if name != "kaiming"} <= names
    assert {f"optimizer {name}" for name in optimizers.names() if name != "adamw"} <= names
    assert len(names) == len(methods.names()) + len(inits.names()) + len(optimizers.names()) - 2


def test_what_is_not_installed_is_left_out_with_the_reason(monkeypatch):
    lion = optimizers.get("lion")
    monkeypatch.setattr(lion, "unavailable", lambda self: "it needs the package nothing")
    plan = load_study("family_smoke")
    assert "optimizer lion: it needs the package nothing" in plan.left_out
    assert "optimizer lion" not in {cell.label for cell in plan.cells}


def test_the_runs_of_a_study_in_one_process(two, tmp_path):
    found = run_study(two, tmp_path / "runs", None, None, lambda now: None)
    assert [cell.state for cell in found.cells] == ["done", "done"]
    assert [cell.failed_checks for cell in found.cells] == [(), ()]
    assert [cell.trainable for cell in found.cells] == [1536, 3072]
    assert all(cell.log is not None and Path(cell.log).is_file() for cell in found.cells)


def test_a_run_that_fails_in_this_process_ends_no_other(two, tmp_path, monkeypatch):
    real = training.train_recipe

    def train(loaded, *given):
        if loaded.recipe.method.r == 1:
            raise RuntimeError("a driver broke")
        return real(loaded, *given)

    monkeypatch.setattr(training, "train_recipe", train)
    found = run_study(two, tmp_path / "runs", None, None, lambda now: None)
    assert [cell.state for cell in found.cells] == ["failed", "done"]
    assert "a driver broke" in found.cells[0].note
    assert found.cells[0].log is not None
    assert "Traceback" in Path(found.cells[0].log).read_text()
    monkeypatch.undo()
    again = run_study(two, tmp_path / "runs", "inline", None, lambda now: None)
    assert [cell.attempts for cell in again.cells] == [2, 1]


def test_several_at_a_time_need_another_launcher(two, tmp_path):
    with pytest.raises(InputError, match="--jobs 2"):
        run_study(two, tmp_path / "runs", None, 2, lambda now: None)
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def sigterm():
    """A study that SIGTERM stopped ignores it from then on; the next test has the handler again."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("sigterm")
def test_sigterm_stops_the_run_and_the_study(two, tmp_path):
    def watch(found):
        if any(cell.state == "running" for cell in found.cells):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises((KeyboardInterrupt, LorakitError)):
        run_study(two, tmp_path / "runs", None, None, watch)
    records = [json.loads(p.read_text()) for p in (tmp_path / "runs/two/cells").glob("*.json")]
    assert [record["code"] for record in records] == [128 + signal.SIGINT]
    found = run_study(two, tmp_path / "runs", None, None, lambda now: None)
    assert [cell.state for cell in found.cells] == ["done", "done"]


@pytest.mark.slow
def test_every_plug_in_is_proven_after_ten_steps(tmp_path):
    found = run_study(load_study("family_smoke"), tmp_path, None, None, lambda now: None)
    bad = [(c.label, c.state, c.note) for c in found.cells if c.state != "done" or c.failed_checks]
    assert not bad
