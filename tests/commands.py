"""Fixtures: commands run in this process, as `lorakit ...` would, on the tiny models that ship."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# read when transformers is imported, below
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import lorakit.cli.output
import lorakit.studies.run

SMALL = ["data.limit={train: 64, validation: 32}", "train.epochs=2", "train.global_batch_size=16"]


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def lorakit_cli(monkeypatch, capfd):
    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["lorakit", *map(str, arguments)])
        lorakit.cli.output.console.cache_clear()
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            lorakit.cli.main()
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return Done(end.value.code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run folder: the quickstart on a slice, two seeds."""
    from lorakit.recipe.load import load_recipe
    from lorakit.verbs.train import train_recipe

    loaded = load_recipe("quickstart", [*SMALL, "seeds=[0, 1]"])
    folder, _ = train_recipe(loaded, tmp_path_factory.mktemp("runs"), lambda event: None)
    return folder


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as at:
        at.bind(("127.0.0.1", 0))
        return at.getsockname()[1]


def python(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, that has ended. options: those of `subprocess.run`."""
    line = [sys.executable, *map(str, words)]
    chosen = {"check": False, "timeout": 600, **options}
    return subprocess.run(line, capture_output=True, text=True, **chosen)


STAND_IN = """\
import json, os, signal, sys, time
from pathlib import Path
from lorakit.children import STATUS_FILE, Ending
from lorakit.recipe.load import load_recipe
from lorakit.runs.result import Counts, Result, SeedResult
from lorakit.runs.folder import folder_of, open_run, seed_folder

at = sys.argv.index("--runs")
loaded = load_recipe(sys.argv[2], sys.argv[3:at])
run, steps = folder_of(loaded, Path(sys.argv[at + 1])), loaded.recipe.train.max_steps
run.mkdir(parents=True, exist_ok=True)
seen = {k: os.environ.get(k) for k in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
(run / "environment.json").write_text(json.dumps(seen))
if steps == 13:
    print("step 12 of 13")
    print("error: it cannot be done\\nRead the guide.", file=sys.stderr)
    ending = Ending("training", "it cannot be done\\nRead the guide.", 1)
    ending.write(Path(os.environ[STATUS_FILE]))
    sys.exit(1)

def stop(*_):
    (run / "checkpoint").write_text("whole")
    sys.exit(143)

signal.signal(signal.SIGTERM, stop)
while steps == 99 and not (run / "checkpoint").exists():
    (run / "begun").touch()
    time.sleep(0.05)
seeds = []
for seed in loaded.recipe.seeds:
    (seed_folder(run, seed) / "adapter").mkdir(parents=True)
    score = loaded.recipe.train.learning_rate + seed
    scores = {"validation": {"accuracy": score}}
    length = {"epochs": 1, "steps": 1, "seconds": {"whole": 2.0}}
    seeds.append(SeedResult(seed=seed, scores=scores, base_scores={}, **length))
    seeds[-1].write(seed_folder(run, seed) / "result.json")
open_run(run, loaded.recipe, restart=False)
result = Result(
    recipe=loaded.name,
    task="t",
    model="m",
    method=loaded.recipe.method.model_dump(mode="json"),
    primary="accuracy",
    splits=("validation",),
    counts=Counts(sites=1, trainable=1234, fresh=0, total=9999),
    seeds=tuple(seeds),
    recipe_values=loaded.recipe.plain(),
    started="",
    finished="",
)
result.write(run / "result.json")
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Path:
    """In the place of `lorakit train` in a study: it takes no time, fails (max_steps 13), or goes
    on and on (99)."""
    file = tmp_path / "stand_in.py"
    file.write_text(STAND_IN)
    monkeypatch.setattr(lorakit.studies.run, "PROGRAM", (sys.executable, str(file)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return file
