"""`lorakit train`: every seed of a recipe, each ending in an adapter that was proven, and one result over all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from safetensors.torch import save as safetensors
from torch.distributed import is_initialized

import lorakit
from lorakit.adapters import adapter as files
from lorakit.adapters.base_config import settings_of
from lorakit.batches import refuse_too_long
from lorakit.errors import RecipeError
from lorakit.evaluation.answers import (
    Answer,
    Scores,
    read_splits,
    score_answers,
    scored_splits,
    sliced,
    writes,
)
from lorakit.methods import Attachment
from lorakit.models._load import Base, load, outline
from lorakit.notes import Note, has
from lorakit.recipe.load import Loaded
from lorakit.recipe.schema import Recipe
from lorakit.report.page import write_page
from lorakit.runs.environment import environment
from lorakit.runs.failing_metrics import not_computed, of_the_first, refuse_missing_metric
from lorakit.runs.finished import files_of, finished, intact_seed, not_compared
from lorakit.runs.folder import begun, claimed, folder_of, open_run, seed_folder
from lorakit.runs.generations import Kept
from lorakit.runs.inputs import base_files, record_base_files, refuse_other_base_files
from lorakit.runs.lines import read_lines, write_lines
from lorakit.runs.objects import (
    Examiner,
    Observer,
    attach,
    autocast,
    counts_of,
    precision_of,
    settled,
    training_set,
)
from lorakit.runs.result import Check, Counts, Result, SeedResult, write_whole
from lorakit.runs.resume import Before, Journal, before_of, goes_on_from, made_with
from lorakit.runs.same import record_data, refuse_other_data, same_recipe, unfinished_others
from lorakit.runs.seeds import find_adapter
from lorakit.tasks import Example
from lorakit.training.loop import Setup, Trained, train
from lorakit.training.plan import share
from lorakit.training.processes import is_sharded, on_cpus, settle
from lorakit.training.saving import Checkpoints
from lorakit.verbs.heads import head_view, warn_other_order
from lorakit.verbs.proof import reload_and_merge

log = logging.getLogger(__name__)


def train_recipe(
    loaded: Loaded, runs: Path, observe: Observer, restart: bool = False
) -> tuple[Path, Result]:
    """Train, score, save and prove every seed; returns the run folder and its result.

    A run that is whole already is returned as it stands, unless `fresh`.
    """
    recipe, run = fixed_labels(loaded.recipe), folder_of(loaded, runs)
    if not restart and (done := finished(run, recipe)):
        left = not_compared(run, recipe, done)
        observe(
            {
                "event": "finished_before",
                "folder": str(run),
                "finished": done.finished,
                "not_compared": left,
            }
        )
        if not (run / "report.html").is_file():
            write_report(run, done)
        return run, done
    todo = settled(recipe)
    accelerator = _accelerator(todo)
    share(recipe.train.global_batch_size, recipe.train.micro_batch_size, accelerator.num_processes)
    start = find_adapter(recipe.start_from, runs, recipe) if recipe.start_from else None
    splits = read_splits(recipe.task, recipe.data, scored_splits(recipe.task, train=True))
    shapes = outline(*recipe.base())
    refuse_too_long(recipe.data, None, shapes.config)
    outlined = attach(recipe, shapes)  # a target that is wrong shows before anything is made
    with claimed(run) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            if not restart:
                same_recipe(run, recipe)
            if not begun(run):
                for other, changes in unfinished_others(run, recipe).items():
                    observe(
                        {"event": "another_unfinished", "folder": str(other), "changes": changes}
                    )
            base = base_files(recipe.model, start)
            if not restart and begun(run):
                for seed in recipe.seeds:
                    intact_seed(seed_folder(run, seed))
                for what in [*refuse_other_data(run, splits), *refuse_other_base_files(run, base)]:
                    log.warning(
                        "%s: not compared with that of the seeds that are there: %s", run, what
                    )
            open_run(run, recipe, restart)
            record_data(run, splits)
            record_base_files(run, base)
        accelerator.wait_for_everyone()
        started = _now()
        seeds = _train_seeds(todo, run, splits, start, accelerator, observe)
        whole = _whole(loaded, recipe, run, seeds, counts_of(outlined), started, splits)
        if accelerator.is_main_process:
            write_report(run, whole)
        accelerator.wait_for_everyone()
    return run, whole


def _train_seeds(
    recipe: Recipe,
    run: Path,
    splits: dict[str, list[Example]],
    start: Path | None,
    accelerator: Accelerator,
    observe: Observer,
) -> list[SeedResult]:
    """Those that were trained to their end before are taken as they are."""
    before = {seed: intact_seed(seed_folder(run, seed)) for seed in recipe.seeds}
    accelerator.wait_for_everyone()  # or a process might find the seed that another has just finished
    seeds = []
    for seed in recipe.seeds:
        folder = seed_folder(run, seed)
        if (result := before[seed]) is not None:
            observe({"event": "seed_finished_before", "seed": seed, "folder": str(folder)})
            if accelerator.is_main_process:
                shutil.rmtree(
                    folder / "checkpoints", ignore_errors=True
                )  # a stop may have come before that
        else:
            observe({"event": "seed", "seed": seed, "of": list(recipe.seeds), "folder": str(run)})
            result = train_seed(recipe, seed, folder, splits, start, accelerator, observe)
        seeds.append(result)
    return seeds


def _whole(
    loaded: Loaded,
    recipe: Recipe,
    run: Path,
    seeds: Sequence[SeedResult],
    counts: Counts,
    started: str,
    splits: dict[str, list[Example]],
) -> Result:
    card = files.read(seed_folder(run, seeds[0].seed) / "adapter").about
    assert card is not None
    notes = list(loaded.notes)
    if recipe.train.precision == "auto":
        todo = settled(recipe)
        text = (
            f"precision auto: frozen weights in {todo.model.dtype}, products in {_products(todo)}"
        )
        notes.append(Note(kind="precision", text=text))
    for split, part in _slices(recipe, splits).items():
        text = f"untrained, {split}: scored on {part}, evenly spread"
        notes.append(Note(kind="untrained slice", text=text))
    for text in early_stops(seeds, recipe.evaluate.patience):
        notes.append(Note(kind="early stop", text=text))
    return Result(
        recipe=loaded.name,
        task=recipe.task.name,
        model=card.base,
        model_revision=card.revision,
        method=recipe.method.model_dump(mode="json"),
        primary=recipe.task.primary,
        splits=scored_splits(recipe.task),
        counts=counts,
        seeds=tuple(seeds),
        published=dict(recipe.expect.scores),
        published_source=recipe.expect.source,
        comparable=not has(notes, "other setting"),
        recipe_values=recipe.plain(),
        environment=environment(),
        started=started,
        finished=_now(),
        notes=tuple(notes),
    )


def early_stops(seeds: Sequence[SeedResult], patience: int | None) -> list[str]:
    """A note for each seed that evaluate.patience ended before its last step."""
    return [
        f"seed {seed.seed} was stopped early (evaluate.patience {patience}): after step {seed.steps:,} of "
        f"{seed.planned_steps:,}, so {seed.not_trained:,} steps were not trained"
        for seed in seeds
        if seed.not_trained
    ]


def _products(recipe: Recipe) -> str:
    return recipe.model.dtype if recipe.train.precision == "fp32" else recipe.train.precision


def fixed_labels(recipe: Recipe) -> Recipe:
    """Labels read from the training file become part of the recipe, so that the run stands without the file."""
    if "classes" not in type(recipe.task).model_fields or not recipe.task.labels:
        return recipe
    return recipe.model_copy(
        update={"task": recipe.task.model_copy(update={"classes": recipe.task.labels})}
    )


def write_report(run: Path, result: Result) -> None:
    """result.json, which says that the run is whole, and the page, which `lorakit report` can draw again."""
    result.write(run / "result.json")
    logs = {s.seed: read_lines(seed_folder(run, s.seed) / "metrics.jsonl") for s in result.seeds}
    write_page(
        run,
        result,
        logs,
        read_lines(_predictions(seed_folder(run, result.seeds[0].seed), result.splits[0])),
    )


def train_seed(
    recipe: Recipe,
    seed: int,
    folder: Path,
    splits: dict[str, list[Example]],
    start: Path | None,
    accelerator: Accelerator,
    observe: Observer,
) -> SeedResult:
    """One seed: load, attach, score untrained, train, save, prove, predict; or on from where it was stopped."""
    begin = time.perf_counter()
    task, main = recipe.task, accelerator.is_main_process
    saved = goes_on_from(folder, accelerator)
    set_seed(seed, deterministic=recipe.train.deterministic)  # before the head and A are drawn
    base = load(*recipe.base())
    attachment = attach(recipe, base)
    card = about(recipe, base, attachment)
    before = (
        None if saved is None else before_of(saved, card.fingerprint, accelerator.num_processes)
    )
    renewed = None
    if start is not None:
        renewed = files.start_from(files.read(start), attachment)
        observe({"event": "started_from", "folder": str(start), "fresh": renewed})
    base.to(accelerator.device)
    view = head_view(recipe, base, attachment, renewed)
    warn_other_order(view)
    shown = {"base": base, "attachment": attachment, "counts": counts_of(attachment), "head": view}
    observe({"event": "model", **shown})
    asked = {split: splits[split] for split in scored_splits(task)}
    examiner = Examiner(recipe, base.tokenizer, base.config, asked, attachment, observe, seed)
    encoded = training_set(recipe, splits[task.train_split], base.tokenizer)
    refuse_unused(recipe.model.new_tokens, encoded, base.tokenizer)
    seconds = {"load": time.perf_counter() - begin}
    if before is None:
        bare = (
            attachment.off() if recipe.method.added_tokens else nullcontext()
        )  # others begin as the base
        with bare, autocast(recipe, accelerator.device):
            base_scores = examiner.untrained(base.model)
        seconds["base score"] = time.perf_counter() - begin - seconds["load"]
    else:
        base_scores, seconds = before.base_scores, before.seconds
    observe({"event": "base", "scores": base_scores, "slices": _slices(recipe, splits)})
    refuse_missing_metric(task, base_scores)
    setup = Setup(
        encoded,
        task.head,
        base.tokenizer.pad_token_id,
        recipe.data.max_length if recipe.data.padding == "max_length" else None,
        recipe.train,
        recipe.evaluate,
        seed,
        (task.eval_splits[0], task.primary),
        recipe.data.max_length if recipe.data.packing else None,
    )
    set_seed(
        seed, device_specific=accelerator.num_processes > 1
    )  # dropout differs by process, and only that
    latest: dict[str, list[Answer]] = {}
    earlier = seconds.get("whole", 0.0)  # before a stop

    def score(model: Any) -> Scores:
        latest.update({split: examiner.answers(model, split) for split in task.eval_splits})
        scores = {
            split: score_answers(task, found, examiner.failed) for split, found in latest.items()
        }
        return of_the_first(scores, setup.watched, accelerator)

    def known() -> dict[str, Any]:
        seconds["whole"] = earlier + time.perf_counter() - begin
        return Before(
            fingerprint=card.fingerprint,
            base_scores=base_scores,
            journal=journal.length(),
            seconds=seconds,
            made_with=made_with(),
        ).model_dump(mode="json")

    with Journal(
        folder / "metrics.jsonl" if main else None, None if before is None else before.journal
    ) as journal:
        checkpoints = Checkpoints(folder / "checkpoints", recipe.train.checkpoint, saved, known)
        trained = train(
            attachment, setup, accelerator, score, _both(observe, journal.write), checkpoints
        )
    if is_sharded(
        accelerator
    ):  # the model is in parts: it is read anew, and what was trained is put on it
        accelerator.free_memory()
        base = load(*recipe.base())
        attachment = examiner.attachment = attach(recipe, base)
        attachment.load_state(trained.state)
        base.to(accelerator.device)
    if main:
        files.save(folder / "adapter", attachment, card, base.tokenizer)
    accelerator.wait_for_everyone()
    with autocast(recipe, accelerator.device):
        answers = (
            latest if trained.best_step == trained.steps else {}
        )  # of the state that was kept, or to be asked
        for split in scored_splits(task):
            if split not in answers:
                kept = _kept(recipe, folder, split, trained, accelerator)
                answers[split] = examiner.answers(base.model, split, kept=kept)
    scores: Scores = {
        split: score_answers(task, found, examiner.failed) for split, found in answers.items()
    }
    proven = (
        _prove(recipe, folder, base, attachment, encoded[:8], accelerator, trained) if main else []
    )
    seconds |= {
        "train": trained.seconds,
        "evaluate": trained.evaluating,
        "whole": earlier + time.perf_counter() - begin,
    }
    if main:
        for split, found in answers.items():
            write_lines(_predictions(folder, split), (answer.line() for answer in found))
            Kept.partial(_predictions(folder, split)).unlink(missing_ok=True)
        write_whole(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
    result = SeedResult(
        seed=seed,
        scores=scores,
        base_scores=base_scores,
        best_epoch=trained.best_epoch,
        epochs=trained.epochs,
        steps=trained.steps,
        planned_steps=trained.planned,
        skipped_steps=trained.skipped,
        delta_norms=attachment.delta_norms(),
        checks=(*proven, *not_computed(examiner.failed)),
        seconds=seconds,
        files=files_of(folder) if main else {},
    )
    if main:
        result.write(folder / "result.json")  # last: it says that the seed is whole
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    accelerator.free_memory()
    return result


def refuse_unused(new_tokens: Sequence[str], encoded: Sequence[Any], tokenizer: Any) -> None:
    """RecipeError for a new token that no example holds: its row would never be trained."""
    seen = {token for item in encoded for token in item.inputs["input_ids"]}
    for text in new_tokens:
        if tokenizer.convert_tokens_to_ids(text) not in seen:
            raise RecipeError(
                f"model.new_tokens: no example of the training split holds {text!r}; leave it out"
            )


def about(recipe: Recipe, base: Base, attachment: Attachment) -> files.About:
    """What travels with the adapter. Made before training: the fingerprint is of the base as it was loaded."""
    return files.About(
        base=base.name,
        revision=base.revision,
        model_type=base.config.model_type,
        head=recipe.task.head.value,
        labels=list(recipe.task.labels),
        task=recipe.task.model_dump(mode="json", exclude_none=True),
        decode=recipe.decode.model_dump(mode="json"),
        max_length=recipe.data.max_length,
        method=recipe.method.model_dump(mode="json"),
        fresh=sorted(attachment.newly_initialised),
        fingerprint=files.fingerprint(base.model, attachment.newly_initialised),
        lorakit=lorakit.__version__,
        model_config=dict(recipe.model.config),
        new_tokens=list(recipe.model.new_tokens),
        base_config=settings_of(base.config),
        base_id=recipe.model.id,
    )


def _prove(
    recipe: Recipe,
    folder: Path,
    base: Base,
    attachment: Attachment,
    probe: Sequence[Any],
    accelerator: Accelerator,
    trained: Trained,
) -> list[Check]:
    norms = attachment.delta_norms()
    dead = [name for name, norm in norms.items() if not norm > 0] if attachment.sites else []
    # with a warm-up from zero the first step changes nothing, and it may be the best of few
    kept = f"; dead: {', '.join(dead[:3])}; the kept state is that after step {trained.best_step} of {trained.steps}"
    alive = Check(
        name="alive",
        passed=not dead,
        value=min(norms.values(), default=0.0),
        tolerance=0.0,
        note=f"the least ||dW||/||W|| of all sites{kept if dead else ''}",
    )
    return [alive, *reload_and_merge(recipe, folder / "adapter", base, probe, accelerator.device)]


def _accelerator(recipe: Recipe) -> Accelerator:
    precision = precision_of(recipe)
    wanted: dict[str, Any] = {
        "mixed_precision": precision,
        "cpu": on_cpus(os.environ.get("LORAKIT_CPU") == "1"),
    }
    try:
        try:
            accelerator = Accelerator(**wanted)
        except ValueError:
            # accelerate refuses another precision than that of the process's first Accelerator, and has no other way
            AcceleratorState._reset_state(reset_partial_state=not is_initialized())
            accelerator = Accelerator(**wanted)
    except ValueError as error:
        raise RecipeError(
            f"train.precision {recipe.train.precision} is not to be had here: {error}"
        ) from error
    if (
        precision == "fp16" and accelerator.device.type == "cpu"
    ):  # accelerate would train in fp32 without a word
        raise RecipeError(
            "train.precision fp16 is not to be had here: it needs a GPU; take bf16 or fp32"
        )
    settle(accelerator, precision, recipe.train)
    return accelerator


def _slices(recipe: Recipe, splits: dict[str, list[Example]]) -> dict[str, str]:
    return sliced(recipe.task, {split: len(splits[split]) for split in scored_splits(recipe.task)})


def _predictions(folder: Path, split: str) -> Path:
    return folder / "predictions" / f"{split}.jsonl"


def _kept(
    recipe: Recipe, folder: Path, split: str, trained: Trained, accelerator: Accelerator
) -> Kept | None:
    """Where the texts of the kept state are saved as they come; those that are of it already are not asked again."""
    if not (accelerator.is_main_process and writes(recipe.task)):
        return None
    file = _predictions(folder, split)
    if accelerator.num_processes > 1:
        Kept.partial(file).unlink(missing_ok=True)  # the others do not know what it holds
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(trained.state.items()):
        digest.update(safetensors({name: tensor}))
    return Kept(file, f"this run, {digest.hexdigest()}", recipe.evaluate.batch_size)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _both(first: Observer, second: Observer) -> Observer:
    def both(event: dict[str, Any]) -> None:
        first(event)
        second(event)

    return both


__all__ = ["about", "train_recipe", "train_seed"]
