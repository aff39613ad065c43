"""`lorakit train` in a separate process, with the processor time of its training part.

Evaluations during training are included, as in the Trainer's time. Prints one JSON line per seed.

    python -m lorakit.bench._lorakit minilm/glue_mrpc data.path=GLUE model.name=MODEL
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from lorakit.events import Event, SplitEvaluated, StepTaken, TrainingStarted
from lorakit.recipe.load import load_recipe

if __name__ == "__main__":
    loaded = load_recipe(sys.argv[1], sys.argv[2:])
    from lorakit.verbs.train import train_recipe

    # Of each seed, the processor time at its start and at its latest event, in seconds.
    spans: list[list[float]] = []

    def observe(event: Event) -> None:
        if isinstance(event, TrainingStarted):
            spans.append([time.process_time()] * 2)
        elif isinstance(event, (StepTaken, SplitEvaluated)):
            spans[-1][1] = time.process_time()

    with tempfile.TemporaryDirectory() as runs:
        _, result = train_recipe(loaded, Path(runs), observe)
    for seed, (start, end) in zip(result.seeds, spans, strict=True):
        print(
            json.dumps({"seed": seed.seed, "scores": seed.scores, "processor": end - start}),
            flush=True,
        )
