"""The task of a translated configuration: its files, where they can be named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorakit.errors import RecipeError
from lorakit.recipe.load import compose
from lorakit.tasks import tasks

TRAIN, VALIDATION = "train.jsonl", "validation.jsonl"
"""Files that a reader of the recipe is to replace."""


def task_of(recipe: dict[str, Any], values: Mapping[str, Any], remarks: list[str]) -> None:
    """Put the task into the recipe: the first form that validates. Its files need not exist.

    values: of the configuration. remarks: what is to be replaced is added.
    """
    train, of_hub = _source(values)
    if of_hub and "chat" not in tasks.own_names():
        train = None
    if train is None:
        train, of_hub = TRAIN, False
        remarks.append(f"The training data is not a file: replace {TRAIN}.")
    share = next((values[k] for k in ("val_size", "val_set_size") if values.get(k)), None)
    validation = _validation(values)
    for candidate in _candidates(train, validation, share):
        try:
            compose(json.loads(json.dumps({**recipe, "task": candidate})))
        except RecipeError:
            continue
        break
    else:
        candidate = {"name": "text", "train": train, "validation": validation or VALIDATION}
    recipe["task"] = candidate
    if candidate.get("validation") == VALIDATION:
        remarks.append(f"Validation data is needed: replace {VALIDATION}.")
    if of_hub:
        remarks.append(f"{train.removeprefix('hub:')} is taken for a data set of the hub.")


def _candidates(train: str, validation: str | None, share: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if "chat" in tasks.own_names():
        chat = {"name": "chat", "train": train}
        if validation is not None:
            found.append({**chat, "validation": validation})
        elif share is not None:
            found.append({**chat, "validation": share})
        found += [chat, {**chat, "validation": VALIDATION}]
    return [*found, {"name": "text", "train": train, "validation": validation or VALIDATION}]


def _source(values: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The file or data set (`hub:NAME`), and whether it is one of the hub."""
    datasets = values.get("datasets")
    first = datasets[0] if isinstance(datasets, list) and datasets else None
    named = first.get("path") if isinstance(first, dict) else None
    for key in ("train_file", "data_path", "dataset_name", "dataset"):
        if named is None and isinstance(values.get(key), str):
            named = _of_factory(values, values[key]) if key == "dataset" else values[key]
    if not isinstance(named, str):
        return None, False
    if Path(named).suffix in (".json", ".jsonl", ".csv", ".tsv", ".parquet"):
        return named, False
    return f"hub:{named}", True


def _of_factory(values: Mapping[str, Any], name: str) -> str | None:
    """The file of LLaMA-Factory's data set: its dataset_info.json says it."""
    folder = Path(str(values.get("dataset_dir") or "data"))
    try:
        known = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        about = known[name.split(",")[0].strip()]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if "file_name" in about:
        return str(folder / about["file_name"])
    return about.get("hf_hub_url")


def _validation(values: Mapping[str, Any]) -> str | None:
    found = values.get("validation_file")
    tests = values.get("test_datasets")
    if found is None and isinstance(tests, list) and tests and isinstance(tests[0], dict):
        found = tests[0].get("path")
    return found if isinstance(found, str) else None
