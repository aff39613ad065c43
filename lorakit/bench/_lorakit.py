"""`lorakit train` in a separate process, with the processor time of its parts and its tokens.

Evaluations during training are included in the later steps, as in the Trainer's time. Those of a
task whose texts are generated are not: the peers' causal scripts do not evaluate. Prints one JSON
line.

    python -m lorakit.bench._lorakit minilm/glue_mrpc data.path=GLUE model.name=MODEL
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lorakit.bench._parts import PartsClock
from lorakit.evaluation.answers import generates
from lorakit.events import Event, SplitEvaluated, StepTaken, TrainingStarted
from lorakit.recipe.load import load_recipe


class _Steps:
    """The parts of training, from the events of one seed; packing is taken from the step that it
    is in."""

    def __init__(self, clock: PartsClock, peers_evaluate: bool):
        self.clock = clock
        self.peers_evaluate = peers_evaluate
        self.evaluating = 0.0
        self.moments: list[float] = []
        self.packed: list[float] = []

    def observe(self, event: Event) -> None:
        if isinstance(event, (TrainingStarted, StepTaken, SplitEvaluated)):
            now = time.process_time()
            if isinstance(event, SplitEvaluated) and not self.peers_evaluate:
                self.evaluating += now - self.moments[-1]
            self.moments.append(now)
            self.packed.append(self.clock.seconds.get("packing", 0.0))

    def seconds(self) -> dict[str, float]:
        start, first, *_ = self.moments
        in_first = self.packed[1] - self.packed[0]
        in_later = self.packed[-1] - self.packed[1]
        later = self.moments[-1] - first - in_later - self.evaluating
        return {"first step": first - start - in_first, "later steps": later}


class _Counted:
    """The tokens of the training batches, counted where they are made."""

    def __init__(self) -> None:
        self.tokens = self.padded = self.trained = 0

    def take(self, batch: dict[str, Any]) -> None:
        self.tokens += int(batch["attention_mask"].sum())
        self.padded += batch["input_ids"].numel()
        labels = batch["labels"]
        self.trained += int((labels != -100).sum()) if labels.ndim > 1 else 0


def _watched(clock: PartsClock) -> _Counted:
    """Time the parts that no event says, and count the tokens."""
    from lorakit.fast import blocks
    from lorakit.training.accumulation import Accumulator
    from lorakit.training.setup import Setup
    from lorakit.verbs.train import ready, seed

    clock.timed(ready, "encode_cached", "tokenising")
    clock.timed(seed, "prove", "proof")
    clock.timed(blocks, "in_blocks", "packing")
    counted = _Counted()
    in_step: list[bool] = []
    tensors = Setup.tensors

    def counting(setup: Setup, *args: Any) -> dict[str, Any]:
        batch = tensors(setup, *args)
        if in_step:
            counted.take(batch)
        return batch

    gradient = Accumulator.__call__

    def stepping(accumulator: Accumulator, *args: Any, **kwargs: Any) -> Any:
        in_step.append(True)
        try:
            return gradient(accumulator, *args, **kwargs)
        finally:
            in_step.pop()

    Setup.tensors = counting  # type: ignore[method-assign]
    Accumulator.__call__ = stepping  # type: ignore[method-assign]
    return counted


def main(words: list[str]) -> dict[str, Any]:
    loaded = load_recipe(words[0], words[1:])
    from lorakit.verbs.train import train_recipe

    clock = PartsClock()
    counted = _watched(clock)
    steps = _Steps(clock, peers_evaluate=not generates(loaded.recipe.task))
    with tempfile.TemporaryDirectory() as folder:
        # tokens that an earlier round stored would be a gift
        os.environ["LORAKIT_CACHE"] = folder
        _, result = train_recipe(loaded, Path(folder) / "runs", steps.observe)
    (seed,) = result.seeds
    parts = clock.seconds | steps.seconds()
    parts["rest"] = time.process_time() - sum(parts.values())
    found = {"tokens": counted.tokens, "padded": counted.padded, "trained": counted.trained}
    return {"seed": seed.seed, "scores": seed.scores, "parts": parts, **found}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])), flush=True)
