"""The second stage of a seed: score the model before training. Runs that share it ask it once.

The seeds of a recipe without a new head, and the runs of a study with the same base, data and seed,
have the same untrained model. To ask it in each of them takes a fifth of a small study's time. The
answers are shared within a process, as by a study's inline launcher.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch

from lorakit.evaluation.answers import Answer, Scores
from lorakit.events import BaselineScored
from lorakit.runs.failing_metrics import refuse_missing_metric
from lorakit.runs.precision import autocast
from lorakit.verbs.train.job import TrainJob
from lorakit.verbs.train.ready import ReadySeed

MOST_MODELS = 4
"""Untrained models whose answers are kept, the newest: a new head makes another for each seed."""
_Answers = Mapping[str, Sequence[Answer]]
_asked: dict[tuple[type, str], _Answers] = {}
"""The task's class and a digest -> split -> answers. They are in the memory of the process alone,
because on disk they could be those of another version. The scores are computed each time, so a
metric that fails once does not fail for all."""


def score_untrained(job: TrainJob, ready: ReadySeed) -> Scores:
    """The baseline: the scores before training, on a slice of each split.

    InputError: the metric that selects the best state cannot be computed.
    """
    if ready.resumed is None:
        scores = ready.examiner.scores(_answers(job, ready))
        ready.clock.stage_ended("base score")
    else:
        scores = ready.resumed.base_scores
    job.observe(BaselineScored(scores=scores, slices=job.untrained_slices))
    refuse_missing_metric(job.recipe, scores)
    return scores


def _answers(job: TrainJob, ready: ReadySeed) -> _Answers:
    # the weights of a quantized base are not in its fingerprint, and a model that starts from an
    # adapter has been trained before
    if job.start is not None or job.recipe.model.quantize is not None:
        return _ask(job, ready)
    key = (type(job.recipe.task), _digest(job, ready))
    if key not in _asked:
        _asked[key] = _ask(job, ready)
        if len(_asked) > MOST_MODELS:
            del _asked[next(iter(_asked))]
    return _asked[key]


def _ask(job: TrainJob, ready: ReadySeed) -> _Answers:
    bare = nullcontext()
    # an adapter that training starts from is part of the model before training
    if job.start is None and not job.recipe.method.starts_at_base:
        bare = ready.attachment.off()
    with bare, autocast(job.recipe, job.accelerator.device):
        return ready.examiner.untrained(ready.base.model, list(job.scored))


def _digest(job: TrainJob, ready: ReadySeed) -> str:
    """Of all that the answers depend on.

    The method is not part of it: before the first step, the outputs of a method that starts at the
    base are the base's to the bit, and any other method is switched off.
    """
    recipe = job.recipe
    settings = recipe.model_dump(mode="json", include={"task", "model", "data", "decode"})
    settings |= {
        "base": [ready.about.fingerprint, ready.about.base_config],
        "tokenizer": [ready.about.tokenizer, ready.base.tokenizer.chat_template],
        "batch_size": recipe.evaluate.batch_size,
        "precision": [recipe.train.precision, recipe.train.fast],
        "device": [str(job.accelerator.device), torch.get_num_threads()],
        "seed": job.seed if recipe.decode.sample else None,
    }
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for split, examples in ready.examiner.splits.items():
        for row in ready.examiner.untrained_rows(split):
            digest.update(repr(examples[row]).encode("utf-8", "surrogatepass"))
    for name, values in ready.base.model.named_parameters():
        if name in ready.attachment.newly_initialised:
            digest.update(name.encode())
            digest.update(values.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
