"""The data of a translated configuration: LLaMA-Factory's data sets, and files that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorakit.errors import InputError
from lorakit.files.documents import read_json
from lorakit.files.hub import PREFIX
from lorakit.recipe.peers._table import items_of

TRAIN = "train.jsonl"
"""A file that a reader of the recipe is to replace."""
_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}
"""LLaMA-Factory's name of a column -> ours, where they differ."""
_TAGS = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "system_tag": "system",
}


def with_data_sets(values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with LLaMA-Factory's data sets written out, as its dataset_info.json names
    them; a name that is not there stays."""
    folder = Path(str(values.get("dataset_dir") or "data"))
    try:
        known = read_json(folder / "dataset_info.json")
    except (InputError, OSError):
        return dict(values)
    found = dict(values)
    for key, ours in (("dataset", "datasets"), ("eval_dataset", "test_datasets")):
        names = items_of(found[key]) if found.get(key) else []
        if names and isinstance(known, dict) and all(known.get(name) for name in names):
            del found[key]
            found[ours] = [_data_set(name, known[name], folder) for name in names]
    return found


def _data_set(name: str, about: Any, folder: Path) -> dict[str, Any]:
    """A data set in the words of the other tools. InputError: it is not a mapping."""
    where = f"{folder / 'dataset_info.json'}: {name}"
    about = _mapping(about, where)
    file = about.get("file_name")
    tags = _mapping(about.get("tags"), f"{where}.tags")
    named = _mapping(about.get("columns"), f"{where}.columns")
    columns = {_COLUMNS.get(key, key): name for key, name in named.items()}
    return {
        "path": str(folder / str(file)) if file else about.get("hf_hub_url"),
        "name": about.get("subset"),
        "split": about.get("split"),
        "columns": {ours: name for ours, name in columns.items() if ours != name},
        "roles": {role: [tags[tag]] for tag, role in _TAGS.items() if tag in tags},
    }


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    """The value, or an empty mapping for null. InputError: it is something else."""
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is {value!r}, and a mapping is needed")
    return value


def complete_task(recipe: dict[str, Any], remarks: list[str]) -> None:
    """What the task needs and the configuration does not say; its files need not exist.

    remarks: what a reader is to replace, or to verify, is added.
    """
    task = {"name": "chat", **recipe.get("task", {})}
    recipe["task"] = task
    if "train" not in task:
        task["train"] = TRAIN
        remarks.append(f"The training data is not in the configuration: replace {TRAIN}.")
    sources = task["train"] if isinstance(task["train"], list) else [task["train"]]
    paths = [one if isinstance(one, str) else one["path"] for one in sources]
    hub = [path.removeprefix(PREFIX) for path in paths if path.startswith(PREFIX)]
    if hub:
        remarks.append(f"Taken for data sets of the hub: {', '.join(hub)}.")
