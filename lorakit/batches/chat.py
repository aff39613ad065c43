"""A chat in tokens, by the tokenizer's own template: what the assistant said is trained, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from lorakit.batches.render import TemplateError, rendered
from lorakit.batches.special import Special
from lorakit.errors import DataError, ModelError
from lorakit.tasks import ASSISTANT, Example, Turn

log = logging.getLogger(__name__)

SAID = "@"
PROBE = Example("chat", "?", target=SAID, turns=(Turn("user", "?"),))
"""A chat to see what a template writes around an answer."""


class Chats:
    """How one tokenizer writes chats."""

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.special = tokenizer, Special(tokenizer)

    def prompt(self, example: Example) -> list[int]:
        """Token ids of the turns before the answer, and of what the template puts before an answer."""
        return self.special.ids(self._asked(example, example.turns))

    def tokens(self, example: Example, ignore: int) -> tuple[list[int], list[int]]:
        """Token ids of the chat with its answer, and of each token of the assistant's turns its id, of others `ignore`.

        A turn of the assistant is what the template writes after its prompt for an answer: the end-of-turn mark is in
        it. Where the template writes none, the tokenizer's end token follows the answer.
        DataError: the template refuses these turns. ModelError: there is no template, or it rewrites what was said.
        """
        turns = (*example.turns, Turn(ASSISTANT, str(example.target)))
        whole = self._written(example, turns)
        spans = [
            self._span(example, turns, number, whole)
            for number, turn in enumerate(turns)
            if turn.role == ASSISTANT and (number == len(turns) - 1 or not example.last_turn_only)
        ]
        if not self.tokenizer.is_fast:
            name = type(self.tokenizer).__name__
            raise ModelError(
                f"{name} cannot say where its tokens stand in a text, which a chat needs"
            )
        ids, places = self.special.ids_and_places(whole)
        trains = [
            token if any(start <= a and b <= end and a < b for start, end in spans) else ignore
            for token, (a, b) in zip(ids, places, strict=True)
        ]
        end = [] if self.ends else [self._end_token()]
        return [*ids, *end], [*trains, *end]

    def _span(
        self, example: Example, turns: Sequence[Turn], number: int, whole: str
    ) -> tuple[int, int]:
        """From where to where the turn's answer stands in the whole text."""
        before = self._asked(example, turns[:number])
        after = self._written(example, turns[: number + 1])
        last = number == len(turns) - 1
        if not (after.startswith(before) and whole.startswith(before)) and last:
            raise ModelError(self._two_ways(example, before, whole))
        if not (whole.startswith(before) and whole.startswith(after) and after.startswith(before)):
            raise ModelError(
                f"the chat template writes turn {number + 1} of {example.id} in another way when others follow, "
                "so it would train what is never asked; train the last answer only (task.train_on=last)"
            )
        said = self.special.turn(turns[number])
        if _joined(said) not in _joined(before[-200:] + after[len(before) :]):
            raise ModelError(
                f"example {_named(example)}: {self.file} leaves out or changes a part of what the assistant says "
                f"({_short(turns[number].text)}), so that it would not be learned; give one that writes it as it "
                "is, with model.chat_template=FILE.jinja"
            )
        return len(before), len(after)

    def _two_ways(self, example: Example, before: str, whole: str) -> str:
        common = _common(before, whole)
        asks, writes = before[common:], whole[common:]
        return (
            f"example {_named(example)}: {self.file} asks for an answer with the prefix {_short(asks)}, and writes an "
            f"answer in its place as {_short(writes)}, so it would train what is never asked; give a template that "
            "writes answers as it asks for them, with model.chat_template=FILE.jinja"
        )

    def _asked(self, example: Example, turns: Sequence[Turn]) -> str:
        return self._written(example, turns, ask=True).removesuffix(self.opened)

    @cached_property
    def opened(self) -> str:
        """What the prompt for an answer opens, and no answer of a chat has: the `<think>` of a reasoning model."""
        try:
            asked = self._written(PROBE, PROBE.turns, ask=True)
            whole = self._written(PROBE, (*PROBE.turns, Turn(ASSISTANT, SAID)))
        except DataError:
            return ""
        common = _common(asked, whole)
        return asked[common:] if whole[common:].lstrip().startswith(SAID) else ""

    @cached_property
    def ends(self) -> list[int]:
        """The token that the template ends an answer with; empty where it writes none."""
        tail = self._tail
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.get_added_vocab().values()}
        if tail and tail[0] in special:
            return tail[:1]
        return [self.tokenizer.eos_token_id] if self.tokenizer.eos_token_id in tail else []

    @cached_property
    def _tail(self) -> list[int]:
        text = self._written(PROBE, (*PROBE.turns, Turn(ASSISTANT, SAID)))
        after = text[text.rindex(SAID) + 1 :] if SAID in text else ""
        return self.tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"]

    def _end_token(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                f"{self.file} writes no end mark after an answer, and the tokenizer has no end token"
            )
        return self.tokenizer.eos_token_id

    @property
    def file(self) -> str:
        """The template, for messages."""
        given = getattr(self.tokenizer, "chat_template_file", None)
        return (
            f"the chat template {given}"
            if given
            else f"the chat template of {self.tokenizer.name_or_path}"
        )

    def _written(self, example: Example, turns: Sequence[Turn], ask: bool = False) -> str:
        if not self.tokenizer.chat_template:
            raise ModelError(
                "this tokenizer has no chat template; take a base that is made for chats, or give one with "
                "model.chat_template=FILE.jinja"
            )
        messages = [{"role": turn.role, "content": self.special.turn(turn)} for turn in turns]
        try:
            return rendered(self.tokenizer, messages, ask)
        except TemplateError as error:
            raise DataError(
                f"example {_named(example)}: the chat template refuses these turns: {error}; it is {self.file}"
            ) from None


def end_of_turn(tokenizer: Any) -> list[int]:
    """The special token that the template ends an answer with, at which a text is over; empty where it has none."""
    return Chats(tokenizer).ends


def say_template(tokenizer: Any) -> None:
    """Warnings: what is done where a template writes no end mark, or opens a block that answers do not have."""
    chats = Chats(tokenizer)
    try:
        opened, ends = chats.opened, chats.ends
    except DataError as error:
        log.debug("not looked at: %s", error)
        return
    if not ends:
        log.warning(
            "%s writes no end mark after an answer: the tokenizer's end token %r is added to the last answer",
            chats.file,
            tokenizer.eos_token,
        )
    if opened:
        log.warning(
            "%s ends its prompt for an answer with %r, which it does not write before an answer: answers are trained "
            "and asked for without it; whoever asks the trained model with it asks what was not trained",
            chats.file,
            opened,
        )


def _common(a: str, b: str) -> int:
    """Characters that both begin with."""
    return next(
        (n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _joined(text: str) -> str:
    return "".join(text.split())


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]} ...")


def _named(example: Example) -> str:
    return f"{example.id} ({example.where})" if example.where else example.id
