"""Special tokens in texts: a template's are meant, those that stand in the data are text like any other.

`</s>` in a review must not end it, and `<|im_start|>` in a question must not begin a turn.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from lorakit.errors import DataError
from lorakit.tasks import ASSISTANT, Example, Head, Turn

log = logging.getLogger(__name__)

FIRST = 0x10F000
"""A special token that is data stands as one private character, this one and those after it, until it is tokenised.
Fonts with icons and Apple's symbols have theirs elsewhere."""
MARKS = re.compile(f"([{chr(FIRST)}-{chr(0x10FFFD)}])")

Tokens = tuple[list[int], list[tuple[int, int]]]
"""Ids, and from where to where in the text each reaches."""


class Special:
    """The special tokens of a tokenizer, and texts in which some of them are data."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.names = sorted(
            {name for name in tokenizer.all_special_tokens if name}, key=len, reverse=True
        )

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        return re.compile("|".join(map(re.escape, self.names))) if self.names else None

    def within(self, text: str) -> str | None:
        """The first special token that stands in a text."""
        found = self.pattern.search(text) if self.pattern else None
        return found.group() if found else None

    def marked(self, text: str, spans: Sequence[tuple[int, int]] | None = None) -> str:
        """The text with a mark in place of each special token that begins in one of the spans; None: anywhere."""
        if own := MARKS.search(text):
            raise DataError(
                f"a text holds the private character U+{ord(own.group()):X}, which no font has; remove it"
            )
        if self.within(text) is None:
            return text
        assert self.pattern is not None

        def mark(found: re.Match[str]) -> str:
            data = spans is None or any(begin <= found.start() < end for begin, end in spans)
            return chr(FIRST + self.names.index(found.group())) if data else found.group()

        return self.pattern.sub(mark, text)

    def turn(self, turn: Turn) -> str:
        """What is said, `marked`. What the assistant says may hold special tokens, but for the end token."""
        if turn.role != ASSISTANT or self.tokenizer.eos_token is None:
            return self.marked(turn.text)
        end = re.escape(self.tokenizer.eos_token)
        return self.marked(turn.text, [found.span() for found in re.finditer(end, turn.text)])

    def ids(self, text: str) -> list[int]:
        """Token ids of a text with marks, and of nothing around it."""
        return [token for piece in MARKS.split(text) for token in self._piece(piece)]

    def ids_and_places(self, text: str) -> Tokens:
        """As `ids`, with the characters of the text with marks that each token stands for."""
        ids: list[int] = []
        places: list[tuple[int, int]] = []
        at = 0
        for piece in MARKS.split(text):
            if MARKS.fullmatch(piece):
                new = self._piece(piece)
                places += [(at, at + 1)] * len(new)
                ids += new
            elif piece:
                found = self.tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
                ids += found["input_ids"]
                places += [(a + at, b + at) for a, b in found["offset_mapping"]]
            at += len(piece)
        return ids, places

    def _piece(self, piece: str) -> list[int]:
        if not MARKS.fullmatch(piece):
            return self.tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else []
        found = self.tokenizer(
            self._name(piece), add_special_tokens=False, split_special_tokens=True
        )["input_ids"]
        return [self._plain(token, self._name(piece)) for token in found]

    def _name(self, mark: str) -> str:
        return self.names[ord(mark) - FIRST]

    def _plain(self, token: int, where: str) -> int:
        """A vocabulary may hold the special token as a word too: then it is an unknown word."""
        if token not in self.reserved:
            return token
        if self.tokenizer.unk_token_id is None:
            raise DataError(
                f"{where}: its text holds a special token, which this tokenizer cannot write as text"
            )
        return self.tokenizer.unk_token_id

    @cached_property
    def reserved(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}

    def fields(self, examples: Sequence[Example], max_length: int) -> dict[str, list[list[int]]]:
        """The tokenizer's fields of texts, or pairs of texts, that are all data."""
        pairs = any(e.pair is not None for e in examples)
        found = self.tokenizer(
            [e.text for e in examples],
            [e.pair or "" for e in examples] if pairs else None,
            truncation=True,
            max_length=max_length,
            split_special_tokens=True,
        )
        for i, e in enumerate(examples):
            if found.encodings and self.within(f"{e.text}\n{e.pair or ''}"):
                ids, owners = found["input_ids"][i], found.sequence_ids(i)
                found["input_ids"][i] = [
                    token if owner is None else self._plain(token, e.where or e.id)
                    for token, owner in zip(ids, owners, strict=True)
                ]
        return found


def say_special(examples: Sequence[Example], tokenizer: Any, head: Head) -> None:
    """A warning: how many examples hold special tokens as data, and the first of them."""
    special = Special(tokenizer)
    if special.pattern is None:
        return
    found = [(e, name) for e in examples for name in [_data_holds(special, e, head)] if name]
    if found:
        first, name = found[0]
        log.warning(
            "%d of %d examples hold a special token in their data (first: %s, %r); there it is read as plain text%s",
            len(found),
            len(examples),
            first.where or first.id,
            name,
            "" if head is Head.CAUSAL else ", and for a pair of texts two columns are named",
        )


def _data_holds(special: Special, e: Example, head: Head) -> str | None:
    if head is not Head.CAUSAL:
        return special.within(e.text) or special.within(e.pair or "")
    if e.turns:
        turns = (*e.turns, Turn(ASSISTANT, str(e.target or "")))
        return next((special.within(t.text) for t in turns if special.turn(t) != t.text), None)
    texts = [e.text[a:b] for a, b in e.given] + [str(e.target)[a:b] for a, b in e.target_given]
    return next((name for text in texts if (name := special.within(text))), None)
