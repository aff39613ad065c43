"""An example in tokens, and which of them are trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorakit.batches.chat import Chats, say_template
from lorakit.batches.marks import end_of
from lorakit.batches.special import MARKS, Special, say_special
from lorakit.errors import DataError
from lorakit.tasks import Data, Example, Head

log = logging.getLogger(__name__)

IGNORE = -100
"""Label of a position that is not trained, as torch's cross entropy takes it."""


@dataclass(frozen=True)
class Encoded:
    """One example in tokens. inputs: the tokenizer's fields, of one length; trains: of a text to learn, each token that
    is trained, and `IGNORE` in place of the others."""

    id: str
    inputs: dict[str, list[int]]
    target: int | float | None
    trains: Sequence[int] = ()

    @property
    def length(self) -> int:
        return len(self.inputs["input_ids"])

    @property
    def trained(self) -> int:
        """What the loss is summed over: trained tokens for a causal model, one for an example with a label."""
        return sum(label != IGNORE for label in self.trains[1:]) if self.trains else 1


def encode(examples: Sequence[Example], tokenizer: Any, head: Head, data: Data) -> list[Encoded]:
    """Tokens for training, and for scoring where the head gives logits. Cuts at `data.max_length`, and says so."""
    _refuse_half_characters(examples)
    if head is Head.CAUSAL:
        writer = _Writer(tokenizer)
        encoded = [writer.learned(example, data.max_length) for example in examples]
    else:
        fields = Special(tokenizer).fields(examples, data.max_length)
        encoded = [
            Encoded(
                e.id,
                {name: fields[name][i] for name in fields},
                None if e.target is None else number(e),
            )
            for i, e in enumerate(examples)
        ]
    say_texts(examples, tokenizer, head)
    say_cut(encoded, data.max_length)
    return encoded


def say_texts(examples: Sequence[Example], tokenizer: Any, head: Head) -> None:
    """Warnings about what the tokenizer makes of these texts."""
    say_special(examples, tokenizer, head)
    if any(example.turns for example in examples[:1]) and tokenizer.chat_template:
        say_template(tokenizer)


def say_cut(encoded: Sequence[Encoded], most: int) -> None:
    """In the log, how many examples are as long as they may be."""
    if cut := sum(e.length == most for e in encoded):
        log.info("%d of %d examples reach %d tokens and may be cut there", cut, len(encoded), most)


def encode_prompts(examples: Sequence[Example], tokenizer: Any, room: int) -> list[Encoded]:
    """Prompts for generation, `room` tokens at most; a longer one is a DataError: a cut prompt asks something else."""
    _refuse_half_characters(examples)
    encoded = []
    writer = _Writer(tokenizer)
    for example in examples:
        ids = writer.prompt(example)
        if not ids:
            raise DataError(
                f"example {named(example)} has an empty prompt: there is nothing to go on from"
            )
        if len(ids) > room:
            raise DataError(
                f"example {named(example)} has a prompt of {len(ids)} tokens and there is room for {room}; "
                "raise data.max_length or lower decode.max_new_tokens"
            )
        encoded.append(
            Encoded(example.id, {"input_ids": ids, "attention_mask": [1] * len(ids)}, None)
        )
    return encoded


def _refuse_half_characters(examples: Sequence[Example]) -> None:
    """JSON can write half of a character (\\ud83d alone); no tokenizer takes it, and no file."""
    for e in examples:
        try:
            "".join(
                (e.text, e.pair or "", str(e.target), *e.references, *(t.text for t in e.turns))
            ).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"example {named(e)} holds half of a character, {error.object[error.start]!a}; mend the file"
            ) from None


def number(example: Example) -> int | float:
    """The target of an example that has a label or a value."""
    assert not isinstance(example.target, str)
    assert example.target is not None
    return example.target


class _Writer:
    """Examples of a causal model in tokens."""

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.special, self.chats = tokenizer, Special(tokenizer), Chats(tokenizer)
        self.end = tokenizer.eos_token_id

    def prompt(self, example: Example) -> list[int]:
        if example.turns:
            return self.chats.prompt(example)
        first, *rest = MARKS.split(self.special.marked(example.text, example.given))
        ids = [*self._open(first), *self.special.ids("".join(rest))]
        if not example.eos:
            return ids
        end = end_of(self.tokenizer)
        return ids if ids[-1:] == [end] else [*ids, end]

    def _open(self, text: str) -> list[int]:
        """Some tokenizers end every text; the prompt goes on. An end token that stands in the text is meant."""
        found = self.tokenizer(text)
        ids = list(found["input_ids"])
        if ids[-1:] != [self.end]:
            return ids
        owners = found.sequence_ids(0) if found.encodings else [None] * len(ids)
        meant = (
            0
            if found.encodings
            else _ends(self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end)
        )
        while _ends(ids, self.end) > meant and owners[len(ids) - 1] is None:
            ids.pop()
        return ids

    def completion(self, example: Example) -> list[int]:
        text = str(example.target)
        ids = self.special.ids(self.special.marked(text, example.target_given))
        end = end_of(self.tokenizer)
        return ids if ids[-1:] == [end] else [*ids, end]

    def learned(self, example: Example, max_length: int) -> Encoded:
        if example.turns:
            ids, trains = self.chats.tokens(example, IGNORE)
            why = f"the assistant says nothing within {max_length} tokens (data.max_length)"
        else:
            prompt = self.prompt(example)
            ids = [*prompt, *self.completion(example)]
            trains = [IGNORE] * len(prompt) + ids[len(prompt) :] if prompt else []
            why = (
                f"its prompt fills all {max_length} tokens (data.max_length)"
                if prompt
                else "its prompt is empty"
            )
        if not any(label != IGNORE for label in trains[1:max_length]):
            raise DataError(f"example {named(example)} has no token to train on: {why}")
        ids = ids[:max_length]
        return Encoded(
            example.id,
            {"input_ids": ids, "attention_mask": [1] * len(ids)},
            None,
            trains[:max_length],
        )


def _ends(ids: Sequence[int], end: int | None) -> int:
    """End tokens at the end."""
    return next((n for n, token in enumerate(reversed(ids)) if token != end), len(ids))


def named(example: Example) -> str:
    """The example for a message: its id, and where it stands."""
    return f"{example.id} ({example.where})" if example.where else example.id
