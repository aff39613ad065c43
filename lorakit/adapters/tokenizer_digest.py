"""Tokenizer digest: whether a base still cuts texts into the tokens that an adapter was trained on.

The weights do not show another tokenizer: its files may have lost a merge or a pre-tokenizer, and
every text is then other numbers.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any

from lorakit.adapters.about import About
from lorakit.errors import AdapterError
from lorakit.tokenizer import Tokenizer

_TEXTS = (
    "It's 3.14159 o'clock (12:30) -- the quick brown fox, which jumped over 2,000 lazy dogs!",
    "  leading spaces,\ttabs\nand new lines; under_scores, camelCase and e-mail@example.org",
    "naïve café, Straße, Ελληνικά, русский язык, עברית, العربية",
    "हिन्दी, 中文分词, 日本語, 한국어, 🙂",
)
"""Letters, digits, punctuation and spaces of many kinds, in several scripts."""
_DIGEST_BYTES = 12


def tokenizer_digest(tokenizer: Tokenizer) -> dict[str, str]:
    """Two digests.

    tokens: of the vocabulary and of what `_TEXTS` become. files: of the whole tokenizer as its
    library writes it, under the library's version, because another version writes it otherwise; a
    tokenizer that is not of that library has none.
    """
    vocabulary = sorted(tokenizer.get_vocab().items())
    found = {"tokens": _digest([vocabulary, [tokenizer(text)["input_ids"] for text in _TEXTS]])}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        parts = json.loads(backend.to_str())
        # these two are set by each call
        content = {key: parts[key] for key in sorted(parts) if key not in ("truncation", "padding")}
        found[f"tokenizers {version('tokenizers')}"] = _digest(content)
    return found


def refuse_other_tokenizer(
    about: About | None, tokenizer: Tokenizer, folder: object, overridable: bool = True
) -> None:
    """AdapterError: the tokenizer is not the one that the adapter was trained with.

    Nothing is known of an adapter of another program or an older version. folder: the adapter's.
    overridable: whether the command has --any-base.
    """
    if about is None or not about.tokenizer:
        return
    found = tokenizer_digest(tokenizer)
    if any(about.tokenizer.get(key, digest) != digest for key, digest in found.items()):
        instead = ", or take --any-base to use these regardless" if overridable else ""
        raise AdapterError(
            f"{folder} was trained with another tokenizer than that of {tokenizer.name_or_path}: "
            f"its base is {about.base}. Restore the tokenizer's files{instead}."
        )


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
