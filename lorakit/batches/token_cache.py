"""The token cache: examples that were tokenised once, in a file named by a digest of their content.

A file is compressed JSON, whose format has a checksum: for each example the tokenizer's fields and
the trained tokens. It is written under a temporary name and renamed, and may be deleted at any
time.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

from lorakit.batches._encoded import Encoded
from lorakit.batches.encode import encode, log_truncated, numeric_target, warn_of_texts
from lorakit.batches.tokenizer import Tokenizer
from lorakit.disk import sync
from lorakit.tasks import Data, Example, Head

log = logging.getLogger(__name__)

ENCODING_VERSION = 2
"""Increase it if `encode` gives other tokens for the same example."""
MIN_EXAMPLES = 2000
"""Fewer examples are tokenised in about a second, and are not stored."""
LOCK_TIMEOUT_S = 3600.0
"""How long to wait for another process that tokenises the same examples."""


def cache_folder() -> Path:
    """The folder of the files: in LORAKIT_CACHE, or in ~/.cache/lorakit."""
    return Path(os.environ.get("LORAKIT_CACHE") or Path.home() / ".cache" / "lorakit") / "tokens"


def encode_cached(
    examples: Sequence[Example], tokenizer: Tokenizer, head: Head, data: Data
) -> list[Encoded]:
    """The same as `encode`, read from the cache if these examples have been encoded before."""
    encode_now = partial(encode, examples, tokenizer, head, data)
    key = None
    # with these settings examples may be left out, which has to be counted each time
    selects = data.too_long != "truncate" or data.empty is not None
    # the places of words and spans are not in the file
    has_places = head in (Head.TOKENS, Head.SPANS)
    if len(examples) >= MIN_EXAMPLES and not selects and not has_places:
        key = cache_key(examples, tokenizer, head, data)
    if key is None:
        return encode_now()
    file = cache_folder() / f"{key}.json.gz"
    found = _read(file, examples)
    if found is None:
        return _encode_and_store(file, examples, encode_now)
    # `encode` would have logged these
    warn_of_texts(examples, tokenizer, head)
    log_truncated(found, data.max_length)
    return found


def _encode_and_store(
    file: Path, examples: Sequence[Example], encode: Callable[[], list[Encoded]]
) -> list[Encoded]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock"), timeout=LOCK_TIMEOUT_S):
            found = _read(file, examples)  # another process may have written it in the meantime
            if found is None:
                found = encode()
                _write(file, found)
            return found
    except (OSError, Timeout) as error:
        log.warning(
            "tokenised examples are not stored: %s (set LORAKIT_CACHE to another folder)", error
        )
        return encode()


def cache_key(
    examples: Sequence[Example], tokenizer: Tokenizer, head: Head, data: Data
) -> str | None:
    """A digest of everything that the tokens depend on; None for a slow tokenizer, which cannot be
    written down."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    settings = json.loads(backend.to_str())
    for name in ("truncation", "padding"):  # they are those of the last call
        settings.pop(name, None)
    parts = {
        "encoding": ENCODING_VERSION,
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
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16)
    for e in examples:
        turns = [turn.plain() for turn in e.turns]
        fields = (e.id, e.text, e.pair, e.target, e.eos, turns, e.last_turn_only, *e.beyond_text)
        # half of a surrogate pair is refused by `encode`, which gives a better message
        digest.update(repr((*fields, e.given, e.target_given)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _write(file: Path, encoded: Sequence[Encoded]) -> None:
    """OSError: the disk is full, for example. An incomplete file is removed."""
    rows = [(item.inputs, list(item.trains)) for item in encoded]
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        # the lowest level: most numbers are those of masks, and compress well in any case
        temporary.write_bytes(gzip.compress(json.dumps(rows).encode(), 1, mtime=0))
        # on the disk before it gets its name: a power cut must not leave half a file
        sync(temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _read(file: Path, examples: Sequence[Example]) -> list[Encoded] | None:
    """None: the file does not exist, or it is damaged, which is logged."""
    if not file.is_file():
        return None
    try:
        rows = json.loads(gzip.decompress(file.read_bytes()))
        return [
            Encoded(e.id, inputs, numeric_target(e), trains)
            for e, (inputs, trains) in zip(examples, rows, strict=True)
        ]
    except (EOFError, OSError, ValueError, TypeError, zlib.error) as error:
        log.warning("%s is damaged (%s): its examples are tokenised again", file, error)
        with suppress(OSError):
            file.unlink()
        return None
