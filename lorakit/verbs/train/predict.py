"""The stage of a seed in which the kept state predicts every split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from lorakit.evaluation.answers import Answer, Scores, score_answers, writes
from lorakit.runs.generations import PartialPredictions, write_answers
from lorakit.runs.objects import Examiner, autocast
from lorakit.verbs.train.fit import FittedSeed
from lorakit.verbs.train.job import SeedJob


@dataclass(frozen=True)
class Predictions:
    """The answers of the kept state to every split, and their scores."""

    answers: dict[str, list[Answer]]
    scores: Scores

    def write(self, job: SeedJob) -> None:
        """predictions/SPLIT.jsonl, in the place of what was saved while texts were generated."""
        for split, answers in self.answers.items():
            write_answers(job.predictions(split), answers)


def predict(job: SeedJob, examiner: Examiner, fitted: FittedSeed) -> Predictions:
    """Ask the model what the last evaluation did not ask it, and score everything."""
    answers = dict(fitted.answers)
    with autocast(job.recipe, job.accelerator.device):
        for split in job.scored:
            if split not in answers:
                kept = _kept(job, split, fitted.fit.state)
                answers[split] = examiner.answers(fitted.base.model, split, kept=kept)
    task = job.recipe.task
    scores = {split: score_answers(task, own, examiner.failed) for split, own in answers.items()}
    return Predictions(answers, scores)


def _kept(job: SeedJob, split: str, state: Mapping[str, Tensor]) -> PartialPredictions | None:
    """Where texts are saved as they come, so that a stop loses none; None: they are not saved."""
    if not (job.is_main and writes(job.recipe.task)):
        return None
    file = job.predictions(split)
    if job.accelerator.num_processes > 1:
        # The other processes do not know which texts the file holds.
        PartialPredictions.path_of(file).unlink(missing_ok=True)
    asked = f"this run, {_digest(state)}"
    return PartialPredictions(file, asked, job.recipe.evaluate.batch_size)


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(state.items()):
        digest.update(safetensors_bytes({name: tensor}))
    return digest.hexdigest()
