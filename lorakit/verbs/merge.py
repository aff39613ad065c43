"""`lorakit merge`: fold B A into W0, write a plain model, read it back, and prove that nothing changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.adapters.shards import Shards, shards
from lorakit.bases.base import DTYPES, Base
from lorakit.bases.config import read_config
from lorakit.bases.files import cached_of
from lorakit.bases.finite import refuse_merged
from lorakit.bases.load import load
from lorakit.bases.padding import fit_padding
from lorakit.bases.tokenizer import tokenizer_of
from lorakit.batches import Encoded
from lorakit.disk import scratch_for, sync, sync_all
from lorakit.errors import AdapterError, DataError, InputError, ModelError, ToleranceError
from lorakit.evaluation.answers import read_splits, score_answers
from lorakit.models import Model
from lorakit.nn.settings import setting
from lorakit.nn.tokens import fold_rows
from lorakit.recipe.schema import Recipe
from lorakit.runs.labels import keep_own
from lorakit.runs.objects import Examiner
from lorakit.runs.result import write_whole
from lorakit.runs.source import Source, load_source, open_source
from lorakit.tasks import Head
from lorakit.verbs.plain import read_plain
from lorakit.verbs.proof import TOLERANCE, difference, logits_of

REPORT = "merge_report.json"
BATCH = 16
PLAINLY = 4 * BATCH
"""Examples at most that plain transformers is asked too: it shows on a few whether it reads another model."""


def merge(
    path: str,
    to: Path,
    dtype: str = "fp32",
    tolerance: float | None = None,
    examples: int = 256,
    task: str | None = None,
    base: str | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    any_base: bool = False,
) -> dict[str, Any]:
    """Write the merged model to `to` and return the report that stands there as merge_report.json.

    The sum is formed in float32; dtype is that of the files. examples: to compare on before and after; with none the
    whole model is never in memory, where it can be merged file by file (`hub.shards`). ToleranceError, with no model
    left behind, where logits of the model read back differ by more than `tolerance` (relative to the largest logit)
    from those of the adapter.
    """
    if tolerance is not None and not tolerance >= 0:
        raise InputError(f"--tolerance {tolerance}: a difference is zero or more")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(
            f"{to} is there already and is not empty; choose another folder or remove it"
        )
    source = open_source(path, task, base, seed, overrides)
    if source.adapter is None:
        raise AdapterError(f"{path} is a plain model: there is no adapter to merge")
    model = source.recipe.model if source.recipe else Model(name=base or source.adapter.base or "")
    if (
        model.quantize is None
    ):  # quantized weights stand for what they were made from, in the recipe's dtype
        model = model.model_copy(update={"dtype": "fp32"})
    by_file = shards(model, source.head, source.labels, source.adapter)
    loaded, attachment, probe, before = None, None, None, None
    if examples or by_file is None:
        loaded, attachment = load_source(source, model, any_base, dequantize=True)
        assert attachment is not None
        if why := attachment.why_unmergeable():
            raise ModelError(f"{path} cannot be merged: {why}")
        probe = _Probe(source, loaded, examples) if examples else None
        before = probe.look(loaded) if probe else None
    temporary = scratch_for(to)
    try:
        temporary.mkdir(parents=True)
        if by_file is not None:
            loaded = attachment = None  # not beside the one that is read back
            _say_own_problem(source, model, by_file.base.config)
            _write_by_file(by_file, model, temporary, dtype, not any_base)
        else:
            assert loaded is not None
            assert attachment is not None
            attachment.merge()
            fold_rows(loaded.model)
            _say_own_problem(source, model, loaded.config)
            loaded.model.to(DTYPES[dtype])
            for name, parameter in loaded.model.named_parameters():
                refuse_merged(name, parameter)
            _write(loaded, temporary)
            loaded = attachment = None
        allowed = tolerance if tolerance is not None else TOLERANCE[dtype]
        after, plain = None, None
        if probe:
            # in float32, from the files' values
            after, plain = _read_back(temporary, source, probe)
        report = _report(source, before, after, plain, dtype, allowed, probe)
        if report["passed"] is False:
            kept = to.with_name(f"{to.name}.{REPORT}")
            write_whole(kept, json.dumps(report, indent=2) + "\n")
            raise ToleranceError(
                f"the merged model differs: a logit by {report['max_logit_difference']:.2e}, read by plain "
                f"transformers by {report['plain_logit_difference']:.2e} (relative; allowed {allowed:g}), "
                f"{report['prediction_flips']} of {report['examples']} predictions. Nothing was written "
                f"to {to}; see {kept}. Try --dtype fp32, or accept it with --tolerance."
            )
        write_whole(temporary / REPORT, json.dumps(report, indent=2) + "\n")
        sync_all(temporary)
        if to.exists():
            to.rmdir()
        temporary.rename(to)
        sync(to.parent)
    except OSError as error:
        raise InputError(
            f"cannot write the merged model to {to}: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report


class _Probe:
    """What is asked before and after: a slice of the validation split, or random tokens where no task is known."""

    def __init__(self, source: Source, loaded: Base, examples: int):
        self.recipe, self.why = source.recipe, "a slice of the validation split"
        self.pad = loaded.tokenizer.pad_token_id
        self.examiner = self._examiner(source.recipe, loaded, examples)
        if self.examiner is None:
            self.head, self.items = Head(source.head), _random_items(loaded, min(examples, 16))
        else:
            self.head = self.examiner.task.head
            self.items = next(iter(self.examiner.encoded.values()))

    def _examiner(self, recipe: Recipe | None, loaded: Base, examples: int) -> Examiner | None:
        if recipe is None:
            self.why = "random tokens, for no task is known"
            return None
        split = recipe.task.eval_splits[0]
        try:
            rows = read_splits(recipe.task, recipe.data, [split])[split]
        except DataError as error:
            self.why = f"random tokens, for the validation data is not at hand ({error})"
            return None
        step = max(1, len(rows) // examples)
        return Examiner(recipe, loaded.tokenizer, loaded.config, {split: rows[::step][:examples]})

    def logits(self, model: nn.Module, most: int | None = None) -> Tensor:
        """Of the first `most` examples, a row each, or one for each token of a causal model."""
        items = self.items[:most]
        batches = [items[i : i + BATCH] for i in range(0, len(items), BATCH)]
        parts = [logits_of(model, batch, self.head, self.pad) for batch in batches]
        return torch.cat(
            [part.flatten(0, -2) if self.head is Head.CAUSAL else part for part in parts]
        )

    def look(self, base: Base) -> tuple[Tensor, dict[str, float] | None, list[Any]]:
        """(logits, scores, predictions) of the examples."""
        logits = self.logits(base.model)
        if self.examiner is None:
            return logits, None, logits.argmax(-1).tolist()
        answers = self.examiner.answers(base.model, next(iter(self.examiner.splits)))
        scores = score_answers(self.examiner.task, answers, self.examiner.failed)
        return logits, scores, [answer.prediction for answer in answers]


def _read_back(folder: Path, source: Source, probe: _Probe) -> tuple[Any, Tensor]:
    """What `probe.look` gives for the files as lorakit reads them, and logits of some examples as plain transformers
    does: one after the other, so that one model is held at a time. ToleranceError: it cannot read them."""
    loaded = load(Model(name=str(folder)), source.head, source.labels)
    cls, after = type(loaded.model), probe.look(loaded)
    del loaded
    try:
        return after, probe.logits(read_plain(folder, cls), PLAINLY)
    except torch.OutOfMemoryError:
        raise
    except (
        Exception
    ) as error:  # whatever transformers raises for what it cannot read, or cannot compute
        raise ToleranceError(
            f"plain transformers cannot use the merged model, so nothing was written: {error}"
        ) from error


def _random_items(loaded: Base, n: int) -> list[Encoded]:
    words = setting(loaded.config, "vocab_size")
    drawn = torch.randint(5, words, (n, 24), generator=torch.Generator().manual_seed(0)).tolist()
    return [
        Encoded(str(i), {"input_ids": ids, "attention_mask": [1] * len(ids)}, None)
        for i, ids in enumerate(drawn)
    ]


def _say_own_problem(source: Source, model: Model, config: Any) -> None:
    if source.recipe is None and source.head != "causal":
        keep_own(config, read_config(model), len(source.labels) or 1)


def _write_by_file(
    shards: Shards, model: Model, folder: Path, dtype: str, check_base: bool
) -> None:
    shards.write(folder, dtype, check_base)
    made: Any = shards.base.model
    tokenizer = tokenizer_of(model)
    fit_padding(made, tokenizer)
    made.config.architectures, made.config.dtype = [type(made).__name__], DTYPES[dtype]
    made.config.save_pretrained(folder)
    if made.can_generate():
        made.generation_config.save_pretrained(folder)
        if own := cached_of(model, "generation_config.json"):
            shutil.copyfile(own, folder / own.name)
    tokenizer.save_pretrained(folder)


def _write(loaded: Base, folder: Path) -> None:
    loaded.model.save_pretrained(folder)  # type: ignore[operator]
    loaded.tokenizer.save_pretrained(folder)


def _report(
    source: Source,
    before: Any,
    after: Any,
    plain: Tensor | None,
    dtype: str,
    tolerance: float,
    probe: _Probe | None,
) -> dict[str, Any]:
    about = {
        "adapter": source.path,
        "base": source.adapter.base if source.adapter else None,
        "dtype": dtype,
    }
    if probe is None or plain is None:
        return {**about, "examples": 0, "asked": "nothing", "passed": None}
    gap, stock = difference(before[0], after[0]), difference(before[0][: len(plain)], plain)
    return {
        **about,
        "max_logit_difference": gap,
        "plain_logit_difference": stock,
        "tolerance": tolerance,
        "prediction_flips": sum(a != b for a, b in zip(before[2], after[2], strict=True)),
        "examples": len(probe.items),
        "asked": probe.why,
        "metrics_before": before[1],
        "metrics_after": after[1],
        "passed": max(gap, stock) <= tolerance,
    }
