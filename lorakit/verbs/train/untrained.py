"""The second stage of a seed: score the model before training, once for all runs that share it.

The seeds of a recipe without a new head, and the runs of a study with the same base, data and seed,
have the same untrained model. To score it in each of them takes a fifth of a small study's time.
"""

from __future__ import annotations

import copy
import hashlib
import json
from contextlib import nullcontext

import torch

from lorakit.evaluation.answers import Scores
from lorakit.events import BaselineScored
from lorakit.metrics import Failed
from lorakit.runs.failing_metrics import refuse_missing_metric
from lorakit.runs.precision import autocast
from lorakit.verbs.train.job import TrainJob
from lorakit.verbs.train.ready import ReadySeed

_known: dict[tuple[type, str], tuple[Scores, Failed]] = {}
"""The task's class and a digest -> the scores, and the metrics that could not be computed. They
are in the memory of the process alone, because on disk they could be those of another version."""


def score_untrained(job: TrainJob, ready: ReadySeed) -> Scores:
    """The baseline: the scores before training, on a slice of each split.

    InputError: the metric that selects the best state cannot be computed.
    """
    if ready.resumed is None:
        scores = _known_or_scored(job, ready)
        ready.clock.stage_ended("base score")
    else:
        scores = ready.resumed.base_scores
    job.observe(BaselineScored(scores=scores, slices=job.untrained_slices))
    refuse_missing_metric(job.recipe, scores)
    return scores


def _known_or_scored(job: TrainJob, ready: ReadySeed) -> Scores:
    if job.start is not None:  # the model has been trained before
        return _score(job, ready)
    key = (type(job.recipe.task), _digest(job, ready))
    if key not in _known:
        _known[key] = (_score(job, ready), dict(ready.examiner.failed))
    scores, failed = _known[key]
    ready.examiner.failed.update(failed)
    return copy.deepcopy(scores)


def _score(job: TrainJob, ready: ReadySeed) -> Scores:
    bare = nullcontext()
    if not job.recipe.method.starts_at_base:
        bare = ready.attachment.off()
    with bare, autocast(job.recipe, job.accelerator.device):
        return ready.examiner.untrained(ready.base.model, list(job.scored))


def _digest(job: TrainJob, ready: ReadySeed) -> str:
    """Of all that the scores depend on.

    The method is not part of it: before the first step, the outputs of a method that starts at the
    base are the base's to the bit, and any other method is switched off.
    """
    recipe = job.recipe
    settings = recipe.model_dump(mode="json", include={"task", "model", "data", "decode"})
    settings |= {
        "base": ready.about.fingerprint,
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
