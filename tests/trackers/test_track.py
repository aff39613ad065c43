"""Trackers: what they are told, and that none of them ends or delays a run."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from importlib.util import find_spec
from threading import Event as Flag
from types import SimpleNamespace

import pytest

from lorakit.errors import RecipeError
from lorakit.events import SplitEvaluated, StepSkipped, StepTaken, TrainingStarted
from lorakit.trackers import TrackedRun, Tracker, _track, trackers
from lorakit.trackers._base import Started
from lorakit.trackers._track import Tracking, flat, refuse_missing_trackers, values_of

STEP = StepTaken(
    loss=0.5,
    learning_rate=1e-3,
    grad_norm=None,
    step=3,
    epoch=0.5,
    tokens_per_second=10.0,
    seconds=1.0,
    memory_mib=2.0,
)


class Fake:
    """Stands for accelerate's tracker."""

    def __init__(self, fails_at: str = ""):
        self.fails_at = fails_at
        self.told: list = []

    def _do(self, what: str, *values) -> None:
        if what == self.fails_at:
            raise RuntimeError(what)
        self.told.append((what, *values))

    def store_init_configuration(self, values):
        self._do("configuration", values)

    def log(self, values, step):
        self._do("log", values, step)

    def finish(self):
        self._do("finish")


@pytest.fixture
def tracked(monkeypatch, tmp_path):
    def make(start, **more) -> Tracking:
        monkeypatch.setattr(trackers, "get", lambda _name: Tracker("json", "x", start))
        run = TrackedRun("run/seed0", tmp_path, tmp_path, {"a": 1}, **more)
        return Tracking(["fake"], run)

    return make


def test_it_is_told_the_recipe_the_steps_and_the_scores(tracked, tmp_path):
    fake = Fake()
    with tracked(lambda _run: Started(fake, "id-1")) as tracking:
        tracking(TrainingStarted(steps=3, steps_per_epoch=3, accumulation=1))
        tracking(STEP)
        tracking(SplitEvaluated(3, 0.5, "dev", {"loss": 1.5, "f1": float("nan")}))
    told = dict(fake.told[1][1])
    assert fake.told[0] == ("configuration", {"a": 1})
    assert told["train/loss"] == 0.5
    assert "train/grad_norm" not in told
    assert fake.told[2:] == [("log", {"dev/loss": 1.5}, 3), ("finish",)]
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"fake": "id-1"}


def test_a_resumed_seed_continues_its_run(tracked, tmp_path):
    (tmp_path / "trackers.json").write_text('{"fake": "id-1"}')
    fake = Fake()
    asked = []

    def start(run):
        asked.append((run.id, run.step))
        return Started(fake, run.id)

    with tracked(start, step=7):
        pass
    assert asked == [("id-1", 7)]
    assert fake.told == [("finish",)]


@pytest.mark.parametrize("fails_at", ["start", "exit", "configuration", "log", "finish"])
def test_one_that_fails_is_said_and_left(tracked, fails_at, caplog):
    fake = Fake(fails_at)

    def start(_run):
        if fails_at == "start":
            raise OSError("no network")
        if fails_at == "exit":
            raise SystemExit("no key")
        return Started(fake)

    with tracked(start) as tracking:
        for _ in range(3):
            tracking(STEP)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "fake" in record.getMessage()


@pytest.mark.parametrize(
    ("known", "asked", "resume"),
    [(None, "run/seed0", "never"), ("calm-sun-1", "calm-sun-1", "allow")],
)
def test_a_training_that_starts_over_is_another_run_of_trackio(
    known, asked, resume, monkeypatch, tmp_path
):
    """With `never`, trackio chooses another name where there is a run of that name."""
    given = {}

    class Stand:
        def __init__(self, project, **options):
            given.update(options)

        def start(self):
            self.run = SimpleNamespace(name="calm-sun-1")

    monkeypatch.setattr("accelerate.tracking.TrackioTracker", Stand)
    run = TrackedRun("run/seed0", tmp_path, tmp_path, id=known)
    assert trackers.get("trackio").start(run).id == "calm-sun-1"
    assert given == {"name": asked, "resume": resume}


def test_one_that_hangs_delays_nothing(tracked, monkeypatch, caplog):
    monkeypatch.setattr(_track, "FINISH_S", 0.05)
    never = Flag()
    begin = time.monotonic()
    with tracked(lambda _run: never.wait(5)) as tracking:
        for _ in range(1000):
            tracking(STEP)
    assert time.monotonic() - begin < 2
    assert "left behind" in caplog.text
    never.set()


def test_a_skipped_step_and_other_events():
    skipped = StepSkipped("nan", ["a"], 2, 0.1, 1.0, 1.0, 1.0)
    assert values_of(skipped) == ({"train/skipped": 1.0}, 2)
    assert values_of(TrainingStarted(1, 1, 1)) is None


def test_values_are_flat():
    assert flat({"a": {"b": 1, "c": None}, "d": [1, 2], "e": True}) == {
        "a.b": 1,
        "d": "[1, 2]",
        "e": True,
    }


def test_a_missing_package_is_refused_with_its_extra(monkeypatch):
    monkeypatch.setattr(_track, "find_spec", lambda _name: None)
    with pytest.raises(RecipeError, match=r"lorakit\[wandb\]"):
        refuse_missing_trackers(["wandb"])


@pytest.mark.parametrize("name", trackers.own_names())
def test_each_writes_on_this_machine(name, tmp_path, monkeypatch, caplog):
    """Without a network, where its package is installed."""
    if find_spec(trackers.get(name).package) is None:
        pytest.skip(f"{name} is not installed")
    for variable in ("WANDB_MODE", "WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    seed = tmp_path / "run" / "seed0"
    seed.mkdir(parents=True)
    run = TrackedRun("run/seed0", seed, tmp_path, {"train.learning_rate": 1e-3, "about": "x"})
    with Tracking([name], run) as tracking:
        tracking(STEP)
    assert caplog.records == [] or all(r.name != "lorakit.trackers._track" for r in caplog.records)
    assert [path for path in tmp_path.rglob("*") if path.is_file()]


def test_tensorboard_has_each_step_of_a_resumed_seed_once(tmp_path, caplog):
    """In the seed's folder, so that `tensorboard --logdir runs` names the seeds."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seed = tmp_path / "run" / "seed0"
    seed.mkdir(parents=True)
    for resumed_from, loss in ((0, 1.0), (2, 2.0)):
        run = TrackedRun("run/seed0", seed, tmp_path, {"a": 1}, step=resumed_from)
        with Tracking(["tensorboard"], run) as tracking:
            for step in range(resumed_from + 1, 5):
                tracking(replace(STEP, step=step, loss=loss))
    assert not [record for record in caplog.records if record.name == _track.log.name]
    assert all(path.is_relative_to(seed) for path in tmp_path.rglob("events.out.tfevents*"))
    found = EventAccumulator(str(seed / "tensorboard")).Reload().Scalars("train/loss")
    assert [(one.step, one.value) for one in found] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]
