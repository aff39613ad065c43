"""`lorakit bench train`: complete runs, compared with scripts of PEFT and transformers' Trainer.

The recipe is trained for real, each time in a new process, from its start to the scores. The base
and the data must be available.
"""

from __future__ import annotations

import json
import resource

from lorakit.bench._base import Bench, Measured, Setting, run_module
from lorakit.bench._rounds import Rounds, turns
from lorakit.recipe.schema import Recipe

PEERS = {"trainer": "dynamic", "tuned": "tuned", "grouped": "grouped", "padded": "padded"}


class TrainBench(Bench):
    """Processor time of the training part, and of the entire process with its imports."""

    name = "train"
    peers = tuple(PEERS)

    def run(self, recipe: Recipe, setting: Setting) -> Measured:
        modules = {"lorakit": ["lorakit.bench._lorakit"]}
        modules |= {peer: ["benchmarks.trainer", PEERS[peer]] for peer in setting.against}
        training: dict[str, list[float]] = {name: [] for name in modules}
        entire: dict[str, list[float]] = {name: [] for name in modules}
        scores: dict[str, str] = {}
        for _, name in turns(list(modules), setting.rounds):
            before = _seconds_of_children()
            seeds = run_module([*modules[name], *setting.recipe])
            entire[name].append(_seconds_of_children() - before)
            training[name].append(sum(seed["processor"] for seed in seeds))
            scores[name] = json.dumps(seeds[0]["scores"])
        ratios = [
            Rounds(values).ratio("lorakit", peer).named(part)
            for part, values in (("training", training), ("whole", entire))
            for peer in setting.against
        ]
        return Measured(ratios, notes=[f"{name}: {text}" for name, text in scores.items()])


def _seconds_of_children() -> float:
    """Processor time of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


PLUGIN = TrainBench()
