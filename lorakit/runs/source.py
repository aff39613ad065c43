"""What `lorakit eval` and `lorakit merge` are pointed at: a run, an adapter folder, a hub id, or a model folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit.adapters.attach import attach_adapter
from lorakit.adapters.files import CONFIG_FILE, PLAIN_FILE, AdapterFile, read_adapter
from lorakit.bases.base import Base
from lorakit.bases.config import read_config
from lorakit.bases.load import load, load_dequantized
from lorakit.errors import AdapterError, AdapterUnavailable, InputError, ModelError
from lorakit.methods import Attachment
from lorakit.models import Model
from lorakit.recipe.load import build, compose
from lorakit.recipe.schema import Recipe
from lorakit.runs.folder import choose_seed, is_run, is_seed
from lorakit.runs.labels import (
    is_classifier,
    names_of,
    refuse_other_labels,
    refuse_other_outputs,
    refuse_other_problem,
    settle_order,
)
from lorakit.tasks import Head

HEAD_OF_PEFT = {"SEQ_CLS": "classification", "CAUSAL_LM": "causal"}


@dataclass(frozen=True)
class Source:
    """A model to look at. recipe: how it is asked and scored; None where no task is known."""

    path: str
    recipe: Recipe | None
    adapter: AdapterFile | None
    notebook: Path
    """Folder for what is found out about it: seedN/eval of a run, else NAME-eval beside it."""
    why: str = ""
    names: tuple[str, ...] = ()
    """Of the head's outputs, in their order; empty where it is not known."""
    outputs: int | None = None
    """Of the head; None: it follows from the recipe, or is not known."""

    @property
    def head(self) -> str:
        if self.recipe is not None:
            return self.recipe.task.head.value
        if self.adapter is not None and self.adapter.about is not None:
            return self.adapter.about.head
        task_type = ((self.adapter.peft_config if self.adapter else None) or {}).get("task_type")
        if task_type not in HEAD_OF_PEFT:
            raise AdapterError(
                f"{self.path} does not say what it is for (task_type {task_type!r}); give --task"
            )
        if task_type == "SEQ_CLS" and self.outputs == 1:
            return "regression"
        return HEAD_OF_PEFT[task_type]

    @property
    def labels(self) -> Sequence[str]:
        if self.recipe is not None:
            return self.recipe.task.labels
        if self.names or self.head != "classification":
            return self.names
        return [f"LABEL_{i}" for i in range(self.outputs or 2)]


def open_source(
    path: str,
    task: str | None = None,
    base: str | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
) -> Source:
    """Find out what `path` is. InputError where it is nothing that can be read, or its task is not known and needed.

    task, base: for an adapter or a model that does not say it itself. overrides: as for a recipe (`data.path=...`).
    """
    folder = _place(path)
    if is_run(folder) or is_seed(folder):
        chosen, why = choose_seed(folder, seed)
        run = chosen.parent
        recipe = build(run / "recipe.yaml", [*_instead(task, base), *overrides]).recipe
        if recipe.model.chat_template:  # the file that the recipe names may have changed since
            spec = recipe.model.model_copy(update=_own_template(chosen / "adapter"))
            recipe = recipe.model_copy(update={"model": spec})
        adapter = read_adapter(chosen / "adapter")
        names, outputs = _head_of(adapter, recipe.model)
        recipe = settle_order(recipe, names, path)
        return Source(path, recipe, adapter, chosen / "eval", why, names, outputs)
    if seed is not None:
        raise InputError(f"--seed {seed} chooses a seed of a run, and {path} is no run")
    notebook = _beside(folder)
    if not folder.is_dir():
        folder = _from_hub(path)
    if (folder / CONFIG_FILE).is_file() or (folder / PLAIN_FILE).is_file():
        adapter = read_adapter(folder)
        about = adapter.about
        model: dict[str, Any] = {"name": base or adapter.base or ""}
        if about:
            model |= {
                "config": about.model_config,
                "new_tokens": about.new_tokens,
                **_own_template(folder),
            }
        if about and about.revision and not base:
            model["revision"] = about.revision
        if not model["name"]:
            raise AdapterError(f"{folder} does not name its base model; give it with --model")
        given = {"name": task} if task else (about.task if about else None)
        data = {"max_length": about.max_length} if about else {}
        decode = about.decode if about else {}
        recipe = _recipe(given, model, data, overrides, decode)
        names, outputs = _head_of(adapter, recipe.model if recipe else Model(**model))
        if recipe is not None:
            recipe = settle_order(recipe, names, path)
        return Source(path, recipe, adapter, notebook, "", names, outputs)
    if (folder / "config.json").is_file():
        if task is None:
            raise InputError(
                "a plain model does not say what it is scored on; give --task, such as --task glue/mrpc"
            )
        recipe = compose(_parts({"name": task}, {"name": str(folder)}), overrides)
        return _plain(path, recipe, notebook)
    raise InputError(f"{path} is neither a run, nor an adapter folder, nor a model folder")


def _plain(path: str, recipe: Recipe, notebook: Path) -> Source:
    config = read_config(recipe.model)
    if recipe.task.head is Head.CAUSAL or not is_classifier(config):
        return Source(path, recipe, None, notebook)
    names, outputs = tuple(names_of(config)), config.num_labels
    recipe = settle_order(recipe, names, path)
    return Source(path, recipe, None, notebook, "", names, outputs)


def _head_of(adapter: AdapterFile, base: Model) -> tuple[tuple[str, ...], int | None]:
    """(the names of the head's outputs, how many they are), as far as adapter or base say it."""
    if adapter.about is not None:
        return tuple(adapter.about.labels), None
    if (adapter.peft_config or {}).get("task_type") == "CAUSAL_LM":
        return (), None
    # PEFT's files name no labels: the head's last layer, the narrowest, has a row for each
    whole = [t for name, t in adapter.tensors.items() if ".lora_" not in name and t.ndim == 2]
    rows = [tensor.shape[0] for tensor in whole]
    try:
        config = read_config(base)
    except ModelError:  # it is said where the base is loaded
        return (), min(rows, default=None)
    outputs = min(rows, default=config.num_labels)
    names = tuple(names_of(config))
    return names if len(names) == outputs else (), outputs


def _own_template(adapter: Path) -> dict[str, str]:
    """The chat template that was saved with the adapter."""
    file = adapter / "chat_template.jinja"
    return {"chat_template": str(file)} if file.is_file() else {}


def _place(path: str) -> Path:
    folder = Path(path)
    if not path or folder.is_file():
        raise InputError(
            f"{path!r} is {'a file' if path else 'empty'}; give a folder (a run, an adapter, a model)"
        )
    return (
        Path(os.path.abspath(folder)) if folder.name in ("", "..") else folder
    )  # its own name tells what it is


def _instead(task: str | None, base: str | None) -> list[str]:
    """Another task or base than the run's, as overrides. Of the base's recipe the name and its revision go."""
    given = [f"task={json.dumps({'name': task})}"] if task else []
    return [*given, f"model.name={json.dumps(base)}", "model.revision=null"] if base else given


def _beside(folder: Path) -> Path:
    """Never inside an adapter or a model, which may be published as it stands; never in the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    place = Path(os.path.abspath(folder))
    if place.name == "adapter" and is_run(place.parent.parent):
        return place.parent / "eval"
    kept = place.is_dir() and Path(HF_HUB_CACHE).resolve() not in place.resolve().parents
    return (place.parent if kept else Path.cwd()) / f"{place.name}-eval"


def load_source(
    source: Source, model: Model, any_base: bool = False, dequantize: bool = False
) -> tuple[Base, Attachment | None]:
    """The base, with the adapter on where there is one. A plain model must hold its own head."""
    if source.recipe is not None:
        _refuse_other_head(source, source.recipe, model)
    base = (load_dequantized if dequantize else load)(model, source.head, source.labels)
    if source.adapter is None:
        if base.newly_initialised:
            missing = ", ".join(sorted(base.newly_initialised)[:3])
            raise ModelError(
                f"{source.path} holds no {missing}: it is a base model, not a trained one"
            )
        return base, None
    return base, attach_adapter(
        source.adapter, base.model, base.roles, base.newly_initialised, check_base=not any_base
    )


def _refuse_other_head(source: Source, recipe: Recipe, model: Model) -> None:
    plain = source.adapter is None
    about = source.adapter.about if source.adapter else None
    if source.outputs is not None:
        refuse_other_outputs(recipe, source.outputs, source.path)
        if plain:
            refuse_other_problem(recipe, read_config(model), source.path)
    elif plain or (about and about.head != "classification"):
        return
    refuse_other_labels(recipe, source.names, source.path, plain or source.outputs is None)


def _recipe(
    task: dict[str, Any] | None,
    model: dict[str, Any],
    data: dict[str, Any],
    overrides: Sequence[str],
    decode: dict[str, Any] | None = None,
) -> Recipe | None:
    if task is None:
        return None
    return compose({**_parts(task, model), "data": data, "decode": decode or {}}, overrides)


def _parts(task: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    return {"task": dict(task), "model": model, "method": {"name": "full"}}


def _from_hub(name: str) -> Path:
    if name.count("/") != 1 or name.startswith(("/", ".")):
        raise InputError(
            f"there is no folder {name!r} (a run, an adapter, a model), and it is no hub id either"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"])
        )
    except (
        Exception
    ) as error:  # httpx's, huggingface_hub's and OSError: all mean that it is not available now
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise AdapterUnavailable(
            f"there is no folder {name}, and the hub does not give it: {why}"
        ) from error
