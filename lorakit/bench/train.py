"""`lorakit bench train`: complete runs, compared with scripts of PEFT and transformers' Trainer.

The recipe is trained for real, each time in a new process, from its start to the scores. The base
and the data must be available.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence

from lorakit.bench._base import Bench, Measured, Setting
from lorakit.bench._rounds import Rounds
from lorakit.errors import InputError
from lorakit.recipe.schema import Recipe

PEERS = {"trainer": "dynamic", "tuned": "tuned", "grouped": "grouped", "padded": "padded"}


class Train(Bench):
    """Processor time of the training part, and of the entire process with its imports."""

    name = "train"
    peers = tuple(PEERS)

    def run(self, recipe: Recipe, setting: Setting) -> Measured:
        if setting.recipe is None:
            raise InputError("bench train starts processes, and needs the recipe's name")
        commands = {"lorakit": ["lorakit.bench._lorakit"]}
        commands |= {peer: ["benchmarks.trainer", PEERS[peer]] for peer in setting.against}
        training: dict[str, list[float]] = {name: [] for name in commands}
        entire: dict[str, list[float]] = {name: [] for name in commands}
        scores: dict[str, str] = {}
        names = list(commands)
        for number in range(setting.rounds):
            turn = number % len(names)
            for name in [*names[turn:], *names[:turn]]:
                lines, took = _process([*commands[name], *setting.recipe])
                training[name].append(sum(line["processor"] for line in lines))
                entire[name].append(took)
                scores[name] = json.dumps(lines[0]["scores"])
        ratios = [
            Rounds(values).ratio("lorakit", peer).named(part)
            for part, values in (("training", training), ("whole", entire))
            for peer in setting.against
        ]
        return Measured(ratios, notes=[f"{name}: {text}" for name, text in scores.items()])


def _process(words: Sequence[str]) -> tuple[list[dict], float]:
    """The JSON lines that a module printed, and the processor time of its process in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise InputError(
            f"python -m {' '.join(words)} ended with {done.returncode}: "
            f"{done.stderr.strip()[-400:]}"
        )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"seed"')]
    return lines, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


PLUGIN = Train()
