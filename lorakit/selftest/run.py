"""`lorakit selftest`: two ways to the same numbers, each pair tried on the tiny models that ship, on this machine.

A check gives the largest difference that it found; what goes wrong on the way is a finding too. Files are temporary.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from lorakit.adapters import adapter as files
from lorakit.errors import LorakitError, Stopped, ToleranceError, TrainingError
from lorakit.recipe.load import build, shipped
from lorakit.runs.lines import read_lines
from lorakit.runs.objects import Observer
from lorakit.runs.pointer import Pointer
from lorakit.runs.result import SeedResult
from lorakit.verbs.evaluate import evaluate
from lorakit.verbs.generate import Wanted, generate_texts
from lorakit.verbs.merge import merge
from lorakit.verbs.proof import TOLERANCE
from lorakit.verbs.train import train_recipe

SMALL = (
    "data.limit={train: 48, validation: 16}",
    "train.epochs=2",
    "train.global_batch_size=16",
    "train.warmup=0.0",
)
"""Six steps, three an epoch."""
DROPOUT = "method.dropout=0.1"
"""So that random numbers matter while it trains."""
STOP = 3
"""The step, past a checkpoint and within an epoch, at which a run is broken off."""
TEXTS = 12
PATIENCE = 300
"""Seconds until processes that do not end are ended."""


class NotHere(Exception):
    """Why a check cannot be tried on this machine."""


class _BrokenOff(Exception): ...


@dataclass(frozen=True)
class Finding:
    """passed: None where the check could not be tried here. value: None where it did not come to one."""

    name: str
    passed: bool | None
    value: float | None
    tolerance: float
    note: str
    seconds: float

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class Bench:
    """Where the checks train, and what several of them compare with."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.device: Any = PartialState(cpu=os.environ.get("LORAKIT_CPU") == "1").device

    @property
    def exact(self) -> float:
        """Largest difference where the same is computed twice; a GPU may add up in another order each time."""
        return 0.0 if self.device.type == "cpu" else 1e-3

    @property
    def close(self) -> float:
        """The same, where the same sum is computed in another order."""
        return 1e-5 if self.device.type == "cpu" else 1e-3

    @cached_property
    def straight(self) -> Path:
        return self.train("straight")

    @cached_property
    def random(self) -> Path:
        return self.train("random", DROPOUT)

    def train(
        self,
        name: str,
        *more: str,
        observe: Observer = lambda event: None,
        recipe: str = "quickstart",
    ) -> Path:
        """The folder of the one seed."""
        loaded = build(shipped("recipes") / f"{recipe}.yaml", [*SMALL, *more])
        run, _ = train_recipe(loaded, self.folder / name, observe)
        return run / "seed0"

    def launch(self, name: str, processes: int) -> Path:
        """As `train`, in several processes, as the command line starts them. TrainingError: they failed."""
        command = [
            sys.executable,
            "-m",
            "lorakit",
            "train",
            str(shipped("recipes") / "quickstart.yaml"),
            *SMALL,
            "--json",
            "--runs",
            str(self.folder / name),
            "--processes",
            str(processes),
            *(["--cpu"] if self.device.type == "cpu" else []),
        ]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            except BaseException as error:
                process.terminate()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise TrainingError(
                        f"{processes} processes did not end in {PATIENCE} s"
                    ) from None
                raise
        if process.returncode:
            raise TrainingError(
                f"{processes} processes ended with code {process.returncode}: {_last(err)}"
            )
        return Path(json.loads(out)["run"]) / "seed0"


Found = tuple[float, float, str]
"""(largest difference, what is allowed, what was compared)"""


def accumulation(bench: Bench) -> Found:
    parts = bench.train("parts", "train.micro_batch_size=4")
    return (
        _curves(bench.straight, parts),
        bench.close,
        "losses and gradient norms of a batch in 1 part and in 4",
    )


def processes(bench: Bench) -> Found:
    if why := _why_alone(bench.device):
        raise NotHere(why)
    several = bench.launch("processes", 2)
    made = json.loads((several / "environment.json").read_text(encoding="utf-8"))["processes"]
    if made != 2:
        raise TrainingError(f"2 processes were asked for, and {made} trained")
    return (
        _curves(bench.straight, several),
        bench.close,
        "losses and gradient norms in 1 process and in 2",
    )


def resume(bench: Bench) -> Found:
    saved = (DROPOUT, "train.checkpoint.every_steps=2")

    def break_off(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == STOP:
            raise _BrokenOff

    with suppress(_BrokenOff):
        bench.train("resumed", *saved, observe=break_off)
    events: list[dict[str, Any]] = []
    again = bench.train("resumed", *saved, observe=events.append)
    at = next((event["step"] for event in events if event["event"] == "resumed"), None)
    if at != STOP - 1:
        raise ToleranceError(
            f"broken off at step {STOP}, it {f'went on from {at}' if at else 'began anew'}"
        )
    return (
        _runs(bench.random, again),
        bench.exact,
        f"weights and losses; broken off at step {STOP}, went on from {at}",
    )


def single(bench: Bench) -> Found:
    run = bench.train("texts", "decode.max_new_tokens=24", recipe="quickstart_generate").parent
    together, alone = (_texts(run, size) for size in (TEXTS, 1))
    differ = sum(a != b for a, b in zip(together, alone, strict=True))
    return (
        float(differ),
        0.0,
        f"texts that differ, of {TEXTS} that were written {TEXTS} at a time and one at a time",
    )


def merged(bench: Bench) -> Found:
    report = merge(
        Pointer(str(bench.straight.parent)),
        bench.folder / "merged",
        tolerance=math.inf,
        examples=TEXTS,
    )
    worst = max(report["max_logit_difference"], _proven(bench.straight, "merge"))
    return (
        worst,
        TOLERANCE["fp32"],
        "logits of the adapter and of the merged model, written and read back",
    )


def loaded(bench: Bench) -> Found:
    out = bench.folder / "loaded"
    evaluate(Pointer(str(bench.straight.parent)), ["validation"], out)
    then, now = (
        read_lines(folder / "validation.jsonl") for folder in (bench.straight / "predictions", out)
    )
    pairs = [
        p
        for a, b in zip(then, now, strict=True)
        for p in zip(a["output"], b["output"], strict=True)
    ]
    worst = max(_worst(pairs), _proven(bench.straight, "reload"))
    return worst, bench.close, "logits after training, and of the adapter read back"


def seed(bench: Bench) -> Found:
    return (
        _runs(bench.random, bench.train("again", DROPOUT)),
        bench.exact,
        "weights and losses of two runs",
    )


CHECKS: dict[str, Callable[[Bench], Found]] = {
    "accumulation 1 = 4": accumulation,
    "same seed = same weights": seed,
    "stop and resume = straight": resume,
    "saved = loaded": loaded,
    "merged = adapter": merged,
    "batch = single generation": single,
    "1 process = 2": processes,
}


def selftest(names: Iterable[str] = tuple(CHECKS)) -> Iterator[Finding]:
    """A finding for each check, as it comes. Nothing is left on the disk."""
    with tempfile.TemporaryDirectory(prefix="lorakit-selftest-") as folder:
        bench = Bench(Path(folder))
        for name in names:
            yield _found(name, bench)


def _found(name: str, bench: Bench) -> Finding:
    start = time.perf_counter()

    def finding(
        passed: bool | None, note: str, value: float | None = None, tolerance: float = 0.0
    ) -> Finding:
        return Finding(name, passed, value, tolerance, note, time.perf_counter() - start)

    try:
        value, tolerance, note = CHECKS[name](bench)
    except Stopped:
        raise
    except NotHere as why:
        return finding(None, str(why))
    except LorakitError as error:
        return finding(False, str(error))
    except Exception as error:  # of a driver, say: it is what this is run to see
        return finding(False, f"{type(error).__name__}: {error}")
    return finding(value <= tolerance, note, value, tolerance)


def _why_alone(device: Any) -> str:
    """Why two processes cannot train here; "": they can."""
    if not torch.distributed.is_available():
        return "this torch is built without torch.distributed"
    if device.type == "cpu":
        return "" if torch.distributed.is_gloo_available() else "this torch is built without gloo"
    if device.type != "cuda":
        return f"processes do not train together on {device.type}; --cpu tries it on the CPU"
    few = torch.cuda.device_count() < 2
    return (
        "one GPU is visible, and each process needs its own; --cpu tries it on the CPU"
        if few
        else ""
    )


def _texts(run: Path, size: int) -> list[Any]:
    pointer = Pointer(str(run), overrides=(f"evaluate.batch_size={size}",))
    answers = generate_texts(pointer, Wanted(split="validation", limit=TEXTS))
    return [answer.output for answer in answers]


def _runs(one: Path, other: Path) -> float:
    a, b = (files.read(folder / "adapter").tensors for folder in (one, other))
    if a.keys() != b.keys():
        raise ToleranceError(
            f"the adapters hold other tensors: {', '.join(sorted(a.keys() ^ b.keys())[:3])}"
        )
    return max(_curves(one, other), *(float((a[name] - b[name]).abs().max()) for name in a))


def _curves(one: Path, other: Path) -> float:
    a, b = (
        [line for line in read_lines(folder / "metrics.jsonl") if line["event"] == "step"]
        for folder in (one, other)
    )
    if len(a) != len(b) or not a:
        raise ToleranceError(f"{len(a)} steps, and {len(b)} the other way")
    return _worst(
        (x[key], y[key]) for x, y in zip(a, b, strict=True) for key in ("loss", "grad_norm")
    )


def _worst(pairs: Iterable[tuple[float, float]]) -> float:
    """max |a - b| / max(1, |a|); what is no number is infinitely far from anything."""
    gaps = [abs(a - b) / max(1.0, abs(a)) for a, b in pairs]
    return max((gap if math.isfinite(gap) else math.inf for gap in gaps), default=math.inf)


def _proven(seed: Path, name: str) -> float:
    """What the run itself has found, on the device that it trained on."""
    checks = SeedResult.model_validate_json((seed / "result.json").read_bytes()).checks
    value = next(check.value for check in checks if check.name == name)
    return math.inf if value is None or not math.isfinite(value) else value


def _last(said: str) -> str:
    return next((line for line in reversed(said.splitlines()) if line.strip()), "they said nothing")
