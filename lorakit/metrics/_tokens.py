"""Where texts are split by another rule than the official scorer's: sacrebleu's tokenizers, for scripts that have no
spaces (`zh`, `char`) or no letters a-z (`intl`)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

log = logging.getLogger(__name__)

Tokenize = Literal["13a", "intl", "zh", "char", "none"]
WORDS = 4
"""Tokens that a text needs for BLEU's longest n-gram."""
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters."""
BY_SPACES = ("bleu", "nist", "ter", "cider", "rouge_l", "meteor", "e2e_metrics", "generation_eval")


@lru_cache
def splitter(name: str, lowercase: bool = False) -> Callable[[str], list[str]]:
    """Text to tokens, as sacrebleu's tokenizer of that name has them."""
    from sacrebleu.metrics.bleu import BLEU

    tokenizer = BLEU(tokenize=name, force=True).tokenizer

    def split(text: str) -> list[str]:
        return tokenizer(text.lower() if lowercase else text).split()

    return split


def say_poor(name: str, references: Sequence[Sequence[str]], tokenize: str | None) -> None:
    """A warning, once: references in which the metric finds too few tokens, so that it says little or nothing."""
    if (
        why := _poor(name, [text for accepted in references for text in accepted], tokenize)
    ) is not None:
        _say(
            f"{name}: {why}; task.tokenize (zh, char, intl) splits other scripts, exact_match needs no tokens"
        )


@lru_cache(maxsize=1000)
def _say(message: str) -> None:
    log.warning(message)


def _poor(name: str, texts: Sequence[str], tokenize: str | None) -> str | None:
    if name == "rouge" and tokenize is None:
        return _without(texts, _is_latin, "most of their letters are not a-z")
    if name in BY_SPACES and tokenize is None:
        odd = [text for text in texts if _is_unspaced(text)]
        if odd:
            return f"{len(odd)} of {len(texts)} references are written without spaces, and are one token each or few"
    if (
        name == "bleu"
        and texts
        and not any(len(splitter(tokenize or "13a")(text)) >= WORDS for text in texts)
    ):
        return f"no reference has {WORDS} tokens, so that a right answer scores 0"
    if name == "rouge" and tokenize is not None:
        return _without(texts, lambda text: bool(splitter(tokenize)(text)), "they are empty")
    return None


def _without(texts: Sequence[str], has: Callable[[str], bool], what: str) -> str | None:
    none = sum(not has(text) for text in texts)
    return (
        f"{none} of {len(texts)} references hold few tokens or none, so that they score 0 ({what})"
        if none
        else None
    )


def _is_latin(text: str) -> bool:
    letters = [sign for sign in text if sign.isalpha()]
    plain = re.findall("[a-z]", text.lower())
    return re.search("[a-z0-9]", text.lower()) is not None and 2 * len(plain) >= len(letters)


def _is_unspaced(text: str) -> bool:
    letters = [sign for sign in text if sign.isalpha()]
    return 2 * len(UNSPACED.findall("".join(letters))) > len(letters)
