"""Examples are tokenised once: what came out is kept in a file, by the content of all that decides it.

A file is safetensors: each of the tokenizer's fields as one row of numbers, and where each example begins in it. It is
written to a temporary name and renamed, carries a checksum, and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from lorakit.batches.encode import Encoded, encode, number, say_cut, say_texts
from lorakit.tasks import Data, Example, Head

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

ENCODING = 2
"""To be raised when `encode` gives other tokens for the same example."""
FEW = 2000
"""Fewer examples are tokenised in about a second, and not kept."""
PATIENCE = 3600.0
"""Seconds to wait for another process that tokenises the same."""


def folder() -> Path:
    """Where the files lie: LORAKIT_CACHE, or ~/.cache/lorakit."""
    return Path(os.environ.get("LORAKIT_CACHE") or Path.home() / ".cache" / "lorakit") / "tokens"


def encode_once(
    examples: Sequence[Example], tokenizer: Any, head: Head, data: Data
) -> list[Encoded]:
    """As `encode`; from the file, where these examples have been encoded before."""
    key = key_of(examples, tokenizer, head, data) if len(examples) >= FEW else None
    if key is None:
        return encode(examples, tokenizer, head, data)
    file = folder() / f"{key}.safetensors"
    if (found := _read(file, examples)) is None:
        found = _make(file, examples, lambda: encode(examples, tokenizer, head, data))
    else:
        say_texts(examples, tokenizer, head)
        say_cut(found, data.max_length)
    return found


def _make(
    file: Path, examples: Sequence[Example], encoded: Callable[[], list[Encoded]]
) -> list[Encoded]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock"), timeout=PATIENCE):
            if (
                found := _read(file, examples)
            ) is None:  # or another process has made it in the meantime
                found = encoded()
                _write(file, found)
            return found
    except (OSError, Timeout) as error:
        log.warning(
            "tokenised examples are not kept: %s (LORAKIT_CACHE names another folder)", error
        )
        return encoded()


def key_of(examples: Sequence[Example], tokenizer: Any, head: Head, data: Data) -> str | None:
    """A digest of all that decides the tokens; None for a tokenizer that cannot be written down (a slow one)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    built = json.loads(backend.to_str())
    settings = {
        k: v for k, v in built.items() if k not in ("truncation", "padding")
    }  # as the last call left them
    named = {
        "encoding": ENCODING,
        "tokenizer": settings,
        "class": type(tokenizer).__name__,
        "head": head.value,
        "versions": [version("tokenizers"), version("transformers")],
        "max_length": data.max_length,
        "special": [
            str(tokenizer.special_tokens_map),
            tokenizer.eos_token_id,
            tokenizer.truncation_side,
        ],
        "template": tokenizer.chat_template,
        "inputs": list(tokenizer.model_input_names),
    }
    digest = hashlib.blake2b(json.dumps(named, sort_keys=True).encode(), digest_size=16)
    for e in examples:
        turns = [(t.role, t.text) for t in e.turns]
        said = (
            e.id,
            e.text,
            e.pair,
            e.target,
            e.eos,
            turns,
            e.last_turn_only,
            e.given,
            e.target_given,
        )
        digest.update(repr(said).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _write(file: Path, encoded: Sequence[Encoded]) -> None:
    """OSError: no place. Nothing is left of a file that was not finished."""
    import numpy as np
    from safetensors.numpy import save

    rows = {name: [item.inputs[name] for item in encoded] for name in encoded[0].inputs}
    rows["trains"] = [list(item.trains) for item in encoded]
    arrays = {}
    for name, lists in rows.items():
        arrays[f"{name}.ends"] = np.fromiter(accumulate(map(len, lists)), np.int64, len(lists))
        arrays[f"{name}.values"] = np.fromiter(chain.from_iterable(lists), np.int32)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as out:
            out.write(save(arrays, {"checksum": _checksum(arrays)}))
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _read(file: Path, examples: Sequence[Example]) -> list[Encoded] | None:
    """None: it is not there, or damaged, which is said."""
    if not file.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as held:
            arrays = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 (it is no mapping)
            checksum = (held.metadata() or {}).get("checksum")
        if checksum != _checksum(arrays):
            raise ValueError("its checksum is another")
        return _unpacked(arrays, examples)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        log.warning("%s is damaged (%s): its examples are tokenised anew", file, error)
        with suppress(OSError):
            file.unlink()
        return None


def _unpacked(arrays: dict[str, np.ndarray], examples: Sequence[Example]) -> list[Encoded]:
    rows: dict[str, list[list[int]]] = {}
    for name in (key.removesuffix(".ends") for key in arrays if key.endswith(".ends")):
        ends, values = arrays[f"{name}.ends"].tolist(), arrays[f"{name}.values"].tolist()
        if len(ends) != len(examples):
            raise ValueError(f"{len(ends)} examples for {len(examples)}")
        rows[name] = [values[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    trains = rows.pop("trains")
    inputs = [dict(zip(rows, parts, strict=True)) for parts in zip(*rows.values(), strict=True)]
    return [
        Encoded(e.id, fields, number(e) if isinstance(e.target, (int, float)) else None, marks)
        for e, fields, marks in zip(examples, inputs, trains, strict=True)
    ]


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        digest.update(
            f"{name} {arrays[name].dtype} {arrays[name].shape} ".encode() + arrays[name].tobytes()
        )
    return digest.hexdigest()
