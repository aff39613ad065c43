"""The digests in an adapter's tensor file, by which a changed bit is noticed.

They cover the tensors, the rest of the file's metadata, adapter_config.json and chat_template.jinja, each on
its own, so that the message says which one changed. The base's name and revision in adapter_config.json may be
edited: they are often set again when an adapter is published, and lorakit reads them from the metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

KEY = "lorakit_digests"
"""In the metadata of the safetensors file."""
CHAT_TEMPLATE = "chat_template.jinja"
_EDITABLE = ("base_model_name_or_path", "revision")


def digests(
    folder: Path,
    metadata: Mapping[str, str],
    config: Mapping[str, Any] | None,
    tensors: Mapping[str, Tensor],
) -> dict[str, str | None]:
    """What each part is -> its digest; None for a part that the adapter does not have.

    config: adapter_config.json as read. folder: where chat_template.jinja is, if there is one.
    """
    rest = {key: value for key, value in metadata.items() if key not in (KEY, "format")}
    kept = config and {key: value for key, value in config.items() if key not in _EDITABLE}
    template = folder / CHAT_TEMPLATE
    return {
        "tensors": _of_tensors(tensors),
        "metadata": _of_json(rest),
        "adapter_config.json": None if kept is None else _of_json(kept),
        CHAT_TEMPLATE: _hash(template.read_bytes()) if template.is_file() else None,
    }


def changed(written: str, found: Mapping[str, str | None]) -> list[str]:
    """The parts that are not as they were written. written: the text under `KEY`."""
    try:
        then = json.loads(written)
    except (ValueError, RecursionError):
        then = None
    if not isinstance(then, dict) or set(then) != set(found):
        return ["the digests themselves"]
    return [part for part, digest in found.items() if then[part] != digest]


def _of_tensors(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _of_json(value: Any) -> str:
    return _hash(json.dumps(value, sort_keys=True).encode())


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
