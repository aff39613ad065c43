"""`lorakit generate`: what the model says to one's own prompts, or to examples of a split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from lorakit.errors import DataError, InputError
from lorakit.evaluation.answers import Answer, read_splits, writes
from lorakit.events import Observer
from lorakit.runs.objects import Examiner, autocast, resolve_precision
from lorakit.runs.source import load_source, open_source
from lorakit.tasks import Example, Task


def generate_texts(
    path: str,
    prompts: Sequence[str] = (),
    split: str | None = None,
    limit: int = 5,
    task: str | None = None,
    base: str | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    any_base: bool = False,
    observe: Observer | None = None,
) -> list[Answer]:
    """An answer per prompt, or to the first `limit` examples of `split`.

    InputError: the model does not write texts, or neither prompts nor a split are given.
    """
    source = open_source(path, task, base, seed, overrides)
    if source.recipe is None:
        raise InputError(
            f"{path} does not say what it was trained for; give --task, such as --task e2e"
        )
    recipe = resolve_precision(source.recipe)
    if not writes(recipe.task):
        kind = "choice" if recipe.task.choices else recipe.task.head.value
        raise InputError(
            f"{path} answers {recipe.task.name} with a {kind}, not with text: `eval` it"
        )
    if split is not None:
        examples = read_splits(recipe.task, recipe.data, [split])[split][:limit]
    elif prompts:
        examples = [asked(recipe.task, prompt, number) for number, prompt in enumerate(prompts)]
    else:
        raise InputError("nothing to answer: give --prompt TEXT, --inputs FILE or --split NAME")
    loaded, attachment = load_source(source, recipe.model, any_base)
    device: Any = PartialState().device
    loaded.to(device)
    seed_of_draws = recipe.seeds[0] if seed is None else seed
    examiner = Examiner(
        recipe,
        loaded.tokenizer,
        loaded.config,
        {"prompts": examples},
        attachment,
        observe,
        seed_of_draws,
    )
    with autocast(recipe, device):
        return examiner.answers(loaded.model, "prompts")


def asked(task: Task, prompt: str, number: int) -> Example:
    if not prompt.strip():
        raise DataError(f"prompt {number + 1} is empty")
    return replace(task.ask(prompt), id=f"prompt-{number}")


def read_prompts(path: Path) -> list[str]:
    """A prompt per line; of a .jsonl, the `prompt` or `input` of each line. DataError: file, line, what is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise DataError(f"{path}: no prompts")
    if path.suffix.lower() != ".jsonl":
        return [line for _, line in numbered]
    return [_prompt(line, f"{path}:{number}") for number, line in numbered]


def _prompt(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: this is not JSON: {error}") from None
    text = (
        next((row[key] for key in ("prompt", "input") if key in row), None)
        if isinstance(row, dict)
        else row
    )
    if not isinstance(text, str):
        raise DataError(
            f'{where}: {{"prompt": "..."}} or a JSON text is expected, this is {line[:60]!r}'
        )
    return text
