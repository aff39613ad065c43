"""`lorakit prepare`: what a recipe needs from the network is fetched, and its examples are tokenised, once.

What is missing is said all at once: one error that lists every file and split, and the command that fetches them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorakit.batches import token_cache
from lorakit.errors import InputError, LorakitError, Unavailable
from lorakit.evaluation.answers import read_splits, scored_splits
from lorakit.metrics import missing_nlg_data
from lorakit.recipe.schema import Recipe
from lorakit.tasks import Example


@dataclass
class Prepared:
    """What is at hand. optional: metrics that would be left out or approximated, and what to install for them."""

    rows: dict[str, int] = field(default_factory=dict)
    weights: list[str] = field(default_factory=list)
    optional: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def prepare(recipe: Recipe, name: str) -> Prepared:
    """Fetch, tokenise, and look at everything. InputError lists all that is not available. name: the recipe's, for the
    command that the message gives."""
    found, splits = _look(recipe)
    if found.missing:
        raise InputError(_message(found.missing, name))
    _tokenise(recipe, splits)
    return found


def tokenise(recipe: Recipe) -> None:
    """The examples of training and scoring, before processes start that would all do it."""
    splits = read_splits(recipe.task, recipe.data, scored_splits(recipe.task, train=True))
    _tokenise(recipe, splits)


def explained(recipe: Recipe, name: str, error: LorakitError) -> LorakitError:
    """The error of a run that could not begin; if things are missing, one that lists them all."""
    if not isinstance(error, Unavailable):
        return error
    found, _ = _look(recipe)
    return InputError(_message(found.missing, name)) if found.missing else error


def _look(recipe: Recipe) -> tuple[Prepared, dict[str, list[Example]]]:
    found, splits = Prepared(), {}
    spec = recipe.model

    def attempt(what: str, get: Callable[[], Any]) -> Any:
        try:
            return get()
        except (Unavailable, OSError) as error:
            found.missing.append(f"{what}: {_short(error)}")
            return None

    from lorakit.bases.config import read_config
    from lorakit.bases.tokenizer import load_tokenizer

    at = f"{spec.name}{f' at {spec.revision}' if spec.revision else ''}"
    attempt(f"base model {at}, configuration", lambda: read_config(spec))
    attempt(f"base model {at}, tokenizer", lambda: load_tokenizer(spec))
    for file in attempt(f"base model {at}, weights", lambda: weight_files(spec)) or ():
        if attempt(f"base model {at}, {file}", lambda file=file: weight_file(spec, file)):
            found.weights.append(file)
    source = recipe.data.path or f"data set of {recipe.task.name}"
    for split in scored_splits(recipe.task, train=True):
        rows = attempt(
            f"{source}, split {split}",
            lambda split=split: read_splits(recipe.task, recipe.data, [split]),
        )
        splits |= rows or {}
    found.rows = {split: len(rows) for split, rows in splits.items()}
    found.optional = _optional(recipe)
    return found, splits


def weight_files(spec: Any) -> list[str]:
    """The safetensors files of the base model; its index is fetched if it has several. OSError: it is not available."""
    index = weight_file(spec, "model.safetensors.index.json", must=False)
    if index is None:
        return ["model.safetensors"]
    return sorted(set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()))


def weight_file(spec: Any, file: str, must: bool = True) -> str | None:
    """Where the file lies, fetched if need be. OSError: it is not available."""
    from transformers.utils.hub import cached_file

    from lorakit.bases.files import location

    lenient = dict.fromkeys(("missing_entries", "connection_errors", "gated_repo"), False)
    raising: Any = (
        {} if must else {f"_raise_exceptions_for_{what}": value for what, value in lenient.items()}
    )
    return cached_file(location(spec.name), file, revision=spec.revision or "main", **raising)


def _tokenise(recipe: Recipe, splits: dict[str, list[Example]]) -> None:
    if all(len(rows) < token_cache.MIN_EXAMPLES for rows in splits.values()):
        return
    from lorakit.bases.config import read_config
    from lorakit.bases.tokenizer import tokenizer_of
    from lorakit.runs.objects import Examiner, training_set

    tokenizer = tokenizer_of(recipe.model)
    training_set(recipe, splits[recipe.task.train_split], tokenizer)
    asked = {split: splits[split] for split in scored_splits(recipe.task)}
    Examiner(recipe, tokenizer, read_config(recipe.model), asked)


def _optional(recipe: Recipe) -> list[str]:
    suite = getattr(recipe.task, "metric", "")
    if suite not in ("e2e_metrics", "generation_eval"):
        return []
    missing = missing_nlg_data()
    return [] if missing is None else [f"METEOR, and CoreNLP's tokeniser: {missing}"]


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [
        type(error).__name__
    ]
    return lines[0] if len(lines[0]) <= 400 else f"{lines[0][:400]}..."


def _message(missing: list[str], name: str) -> str:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    listed = "".join(f"\n  - {line}" for line in missing)
    why = " (HF_HUB_OFFLINE is set, so nothing was asked of the network)" if offline else ""
    return (
        f"{len(missing)} piece(s) of {name} are not at hand{why}:{listed}\n"
        f"Fetch them where there is a network, with the same HF_HOME:  HF_HUB_OFFLINE=0 lorakit prepare {name}"
    )
