"""The files of a checkpoint: where they are, and what the safetensors say of themselves without being read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import lorakit
from lorakit.errors import ModelError, ModelUnavailable
from lorakit.models._base import Model
from lorakit.models._trust import FLAG

_LENIENT = {
    f"_raise_exceptions_for_{what}": False
    for what in ("missing_entries", "connection_errors", "gated_repo")
}
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""As the format calls them; any other is taken for bytes."""


def location(name: str) -> str:
    """`lorakit:NAME` is a folder of the package; anything else is for transformers to find."""
    if not name.startswith("lorakit:"):
        return name
    folder = Path(lorakit.__file__).parent / "assets" / name.removeprefix("lorakit:")
    if not folder.is_dir():
        known = sorted(f.name for f in folder.parent.glob("*") if (f / "config.json").is_file())
        raise ModelError(f"lorakit ships no base model {name!r} (there are: {', '.join(known)})")
    return str(folder)


def cached_of(spec: Model, name: str, local: bool = False) -> Path | None:
    """A file of the checkpoint; None where it has none of that name.

    local: nothing is asked of the network, and what is not here is None. ModelError: the checkpoint is not available.
    """
    from transformers.utils.hub import cached_file

    how: dict[str, Any] = {"local_files_only": True, **_LENIENT} if local else {}
    how |= {"_raise_exceptions_for_missing_entries": False, "revision": spec.revision or "main"}
    try:
        found = cached_file(location(spec.name), name, **how)
    except ModelError:
        raise
    except Exception as error:  # OSError, ValueError, huggingface_hub's and httpx's own
        raise no_config(spec, error) from error
    return Path(found) if found else None


def weight_files(spec: Model, local: bool = False) -> list[Path]:
    """The checkpoint's safetensors files; empty where it has none. ModelError: a damaged index, a file is absent.

    local: as in `cached_of`; empty where one of several is not here.
    """
    if single := cached_of(spec, "model.safetensors", local):
        return [single]
    index = cached_of(spec, "model.safetensors.index.json", local)
    if index is None:
        return []
    names = _listed(index)
    found = [(name, cached_of(spec, name, local)) for name in names]
    if absent := [name for name, file in found if file is None]:
        if local and not Path(location(spec.name)).is_dir():
            return []
        raise ModelError(f"{index} names {absent[0]}, which {spec.name} does not have")
    return [file for _, file in found if file is not None]


def _listed(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not names or any(Path(name).name != name or not name for name in names):
            raise ValueError("weight_map names no files of this folder")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ModelError(f"{index} is damaged: {error!r}") from error
    return names


def shapes_of(files: Sequence[Path]) -> dict[str, Tensor]:
    """Every tensor's name, shape and dtype, as empty tensors on the meta device. ModelError: a damaged file."""
    found: dict[str, Tensor] = {}
    for file in files:
        with opened(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                part = tensors.get_slice(name)
                dtype = _DTYPES.get(part.get_dtype(), torch.uint8)
                found[name] = torch.empty(part.get_shape(), dtype=dtype, device="meta")
    return found


def opened(file: Path) -> Any:
    """As `safe_open`. ModelError: the file is damaged or cut short."""
    try:
        return safe_open(file, "pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{file} is damaged or cut short: {error}; copy or download it again"
        ) from error


def no_config(spec: Model, error: Exception) -> ModelError:
    """The error for a base whose configuration could not be read: unavailable, or there and wrong."""
    folder = Path(location(spec.name))
    if spec.name.startswith(("/", ".", "~")) and not folder.is_dir():
        return ModelError(
            f"there is no model folder {spec.name!r} (a relative one is looked for in {Path.cwd()})"
        )
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{spec.name} needs Python code that comes with it. If you trust where it is from, give {FLAG} to the "
            "command; else take a base whose architecture transformers has"
        )
    if folder.is_dir():
        return ModelError(_damaged(spec, folder, error))
    return ModelUnavailable(
        f"the base model {spec.name!r} is not available: {first_line(error)} "
        "Give a folder (model.name=PATH), or fetch it once with network access."
    )


def not_loaded(what: str, spec: Model, error: Exception) -> ModelError:
    """The error for weights or a tokenizer that transformers did not load."""
    message = f"cannot load {what} of {spec.name}: {first_line(error)}"
    # of a hub id, OSError is what transformers raises when it has no file and no network
    if isinstance(error, OSError) and not Path(location(spec.name)).is_dir():
        return ModelUnavailable(message)
    return ModelError(message)


def _damaged(spec: Model, folder: Path, error: Exception) -> str:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError:
        return f"{spec.name} holds no readable config.json: it is not a model folder"
    except (ValueError, RecursionError) as damage:
        return f"{spec.name}/config.json is damaged: {damage}"
    if not isinstance(content, dict):
        return f"{spec.name}/config.json is damaged: a mapping is expected"
    return (
        f"{spec.name}/config.json does not describe a model that can be built: {first_line(error)}"
    )


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [
        type(error).__name__
    ]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
