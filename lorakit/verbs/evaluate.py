"""`lorakit eval`: score what was trained, beside its base, and prove that the adapter is on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from lorakit.batches import encode
from lorakit.errors import DataError, ToleranceError
from lorakit.evaluation.answers import (
    Scores,
    read_splits,
    score_answers,
    scored_splits,
    sliced,
    untrained_most,
    writes,
)
from lorakit.events import Observer
from lorakit.metrics import Failed
from lorakit.runs.folder import make_folder, write_lines
from lorakit.runs.generations import PartialPredictions, asked_of
from lorakit.runs.objects import Examiner, autocast, resolve_precision
from lorakit.runs.result import write_whole
from lorakit.runs.source import load_source, open_source
from lorakit.tasks import Example, Head
from lorakit.verbs.proof import difference, logits_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """scores: on the whole splits; base_scores: of the same model with the adapter off, on a slice of them."""

    what: str
    why: str
    task: str
    scores: Scores
    base_scores: Scores
    slices: dict[str, str]
    """split -> the part that base_scores is of ("100 of 547 examples"), where it is a part."""
    effect: float | None
    """Largest change of a logit that the adapter causes on a few examples, relative; None for a plain model."""
    files: list[Path]
    rows: dict[str, int]
    cut: dict[str, int]
    """split -> answers that reached decode.max_new_tokens without an end."""
    failed: Failed
    """metric -> why it could not be computed; its score is NaN."""


def evaluate(
    path: str,
    splits: Sequence[str] = (),
    task: str | None = None,
    base: str | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    any_base: bool = False,
    observe: Observer | None = None,
) -> Evaluated:
    """Score a run, an adapter or a merged model. ToleranceError where the adapter changes nothing at all.

    splits: the task's evaluation splits, if none are given; a test split without answers is predicted, and for GLUE
    written in the submission's format.
    """
    source = open_source(path, task, base, seed, overrides)
    if source.recipe is None:
        raise DataError(
            f"{path} does not say what task it was trained for; give --task, such as --task glue/mrpc"
        )
    recipe = resolve_precision(source.recipe)
    wanted = list(dict.fromkeys(splits or scored_splits(recipe.task)))
    known = [*scored_splits(recipe.task, train=True), *recipe.task.test_splits]
    if unknown := [split for split in wanted if split not in known]:
        raise DataError(
            f"{recipe.task.name} has no split {unknown[0]!r} (it has: {', '.join(known)})"
        )
    examples = read_splits(recipe.task, recipe.data, wanted)
    folder = out or source.notebook
    loaded, attachment = load_source(source, recipe.model, any_base)
    device: Any = PartialState().device
    loaded.to(device)
    examiner = Examiner(
        recipe, loaded.tokenizer, loaded.config, examples, attachment, observe, recipe.seeds[0]
    )
    effect = None
    if attachment is not None:
        probe = _probe(examples[wanted[0]][:8], recipe, loaded.tokenizer)
        effect = _effect(loaded, attachment, probe, recipe.task.head)
        if effect == 0.0:
            raise ToleranceError(
                f"{path}: with the adapter and without it the logits are the same; it does nothing"
            )
    scores: Scores = {}
    base_scores: Scores = {}
    written: list[Path] = []
    cut: dict[str, int] = {}
    asked = asked_of(
        recipe.plain(), source.adapter.folder if source.adapter else Path(recipe.model.name)
    )
    make_folder(folder)
    for split in wanted:
        file = folder / f"{split}.jsonl"
        kept = (
            PartialPredictions(file, asked)
            if writes(recipe.task) and PartialState().num_processes == 1
            else None
        )
        with autocast(recipe, device):
            answers = examiner.answers(loaded.model, split, kept=kept)
        write_lines(file, (answer.line() for answer in answers))
        PartialPredictions.path_of(file).unlink(missing_ok=True)
        written.append(file)
        cut[split] = sum(not answer.ended for answer in answers)
        if any(answer.reference is None for answer in answers):
            written += _submission(recipe.task, split, answers, folder)
            continue
        scores[split] = score_answers(recipe.task, answers, examiner.failed)
        if attachment is not None:
            with attachment.off(), autocast(recipe, device):
                base_scores |= examiner.scores(loaded.model, [split], untrained_most(recipe.task))
    rows = {split: len(examples[split]) for split in wanted}
    slices = sliced(recipe.task, {split: rows[split] for split in base_scores})
    return Evaluated(
        path,
        source.why,
        recipe.task.name,
        scores,
        base_scores,
        slices,
        effect,
        written,
        rows,
        cut,
        examiner.failed,
    )


def _probe(examples: Sequence[Example], recipe: Any, tokenizer: Any) -> list[Any]:
    from dataclasses import replace

    if recipe.task.head is Head.CAUSAL:
        # of a test split the answers may be hidden; any text will do to see whether the adapter is on
        examples = [replace(e, target=e.target or next(iter(e.references), "")) for e in examples]
    return encode(examples, tokenizer, recipe.task.head, recipe.data)


def _effect(loaded: Any, attachment: Any, probe: Sequence[Any], head: Head) -> float:
    pad = loaded.tokenizer.pad_token_id
    on = logits_of(loaded.model, probe, head, pad)
    with torch.no_grad(), attachment.off():
        return difference(on, logits_of(loaded.model, probe, head, pad))


def _submission(task: Any, split: str, answers: Sequence[Any], folder: Path) -> list[Path]:
    """The benchmark's own file, where the task has one; a part of the split is predicted, and not submitted."""
    if not hasattr(task, "submission"):
        return []
    try:
        name, text = task.submission(split, {answer.id: answer.prediction for answer in answers})
    except DataError as error:
        log.warning("no file for the benchmark's server: %s", error)
        return []
    write_whole(folder / name, text)
    return [folder / name]
