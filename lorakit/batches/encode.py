"""Examples as tokens, and which of the tokens are trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import takewhile

from lorakit.batches._encoded import IGNORE, Encoded
from lorakit.batches.chat import ChatWriter, warn_of_template
from lorakit.batches.positions_of_text import encode_spans, encode_words
from lorakit.batches.required_tokens import end_token
from lorakit.batches.special import MARKS, SpecialTokens, warn_of_special_tokens
from lorakit.batches.tokenizer import Tokenizer
from lorakit.errors import DataError, shown
from lorakit.files.bad_rows import BadRow, BadRows, Cause
from lorakit.tasks import Data, Example, Head

log = logging.getLogger(__name__)

UNLIMITED = 2**31 - 1
SHOWN_BEGINNING = 120
"""Characters of a template's own text that a message shows."""


def encode(
    examples: Sequence[Example], tokenizer: Tokenizer, head: Head, data: Data
) -> list[Encoded]:
    """Tokens for training, and for evaluation if the head gives logits.

    Examples are truncated at `data.max_length`, and the log says how many; for spans, a longer one
    becomes several windows with its id. `data.too_long` and `data.empty` may leave examples out.
    DataError: examples without a token to train, or with a character that cannot be encoded; it
    lists them.
    """
    bad = BadRows(data.dropped_causes)
    if head is Head.CAUSAL:
        encoded = _learned(examples, _CausalWriter(tokenizer), data, bad)
    elif head in (Head.TOKENS, Head.SPANS):
        whole = _whole(examples, bad)
        encode_places = encode_words if head is Head.TOKENS else encode_spans
        encoded = encode_places(whole, tokenizer, data.max_length)
    else:
        encoded = _given(examples, SpecialTokens(tokenizer), data, bad)
    bad.finish(len(examples))
    refuse_nothing_left(encoded, examples)
    # a longer context becomes several windows, so that nothing is cut
    if head is Head.SPANS:
        return encoded
    warn_of_texts(examples, tokenizer, head)
    log_truncated(encoded, data.max_length)
    return encoded


def _learned(
    examples: Sequence[Example], writer: _CausalWriter, data: Data, bad: BadRows
) -> list[Encoded]:
    found = []
    for example in examples:
        with bad.row(example.where):
            refuse_half_characters(example)
            found.append(writer.learned(example, data))
    return found


def _whole(examples: Sequence[Example], bad: BadRows) -> list[Example]:
    """The examples without those that hold half of a character."""
    whole = []
    for example in examples:
        with bad.row(example.where):
            refuse_half_characters(example)
            whole.append(example)
    return whole


def _given(
    examples: Sequence[Example], special: SpecialTokens, data: Data, bad: BadRows
) -> list[Encoded]:
    """Texts for a head that gives logits."""
    whole = []
    for example in examples:
        with bad.row(example.where):
            refuse_half_characters(example)
            if data.empty is not None and not f"{example.text}{example.pair or ''}".strip():
                problem = f"example {example.shown_id}: its text is empty"
                raise BadRow(problem, Cause.EMPTY, example.where)
            whole.append(example)
    most = data.max_length if data.too_long == "truncate" else UNLIMITED
    fields = special.fields(whole, most) if whole else {}
    found = []
    for i, e in enumerate(whole):
        with bad.row(e.where):
            inputs = {name: fields[name][i] for name in fields}
            item = Encoded(e.id, inputs, numeric_target(e))
            if data.too_long != "truncate":
                refuse_longer(e, item.length, data.max_length)
            found.append(item)
    return found


def lengths_of(examples: Sequence[Example], tokenizer: Tokenizer, head: Head) -> list[int]:
    """The number of tokens of each example with its answer, before anything is truncated."""
    if head is not Head.CAUSAL:
        fields = SpecialTokens(tokenizer).fields(examples, UNLIMITED)
        return [len(ids) for ids in fields["input_ids"]]
    writer = _CausalWriter(tokenizer)
    return [len(writer.prompt(e) if e.target is None else writer.entire(e)[0]) for e in examples]


def refuse_longer(example: Example, length: int, most: int) -> None:
    """BadRow: the example has more than data.max_length tokens."""
    if length > most:
        raise BadRow(
            f"example {example.shown_id} has {length:,} tokens, and data.max_length is {most}",
            Cause.TOO_LONG,
            example.where,
        )


def refuse_nothing_left(encoded: Sequence[Encoded], examples: Sequence[Example]) -> None:
    """DataError: every example is dropped."""
    if examples and not encoded:
        raise DataError(f"all {len(examples):,} examples are dropped; see the warnings")


def warn_of_texts(examples: Sequence[Example], tokenizer: Tokenizer, head: Head) -> None:
    """Warnings about what the tokenizer does with these texts."""
    warn_of_special_tokens(examples, tokenizer, head)
    if tokenizer.chat_template and any(example.turns for example in examples):
        warn_of_template(tokenizer)


def log_truncated(encoded: Sequence[Encoded], most: int) -> None:
    """Log how many examples have the maximum length, and so may be truncated."""
    reached = sum(e.length == most for e in encoded)
    if reached:
        log.info(
            "%d of %d examples reach %d tokens and may be cut there", reached, len(encoded), most
        )


def encode_prompts(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    room: int,
    drops: frozenset[Cause] = frozenset(),
    room_is: str = "",
) -> list[Encoded]:
    """Prompts for generation, of `room` tokens at most.

    drops: with Cause.TOO_LONG, longer prompts are left out. room_is: how the room comes about.
    DataError: empty or longer prompts, because a truncated prompt asks something else; it lists
    them.
    """
    encoded = []
    writer = _CausalWriter(tokenizer)
    bad = BadRows(drops)
    for example in examples:
        with bad.row(example.where):
            refuse_half_characters(example)
            encoded.append(_encoded(example, writer.asked(example, room, room_is)))
    bad.finish(len(examples))
    refuse_nothing_left(encoded, examples)
    return encoded


def _encoded(example: Example, ids: list[int], trains: Sequence[int] = ()) -> Encoded:
    return Encoded(example.id, {"input_ids": ids, "attention_mask": [1] * len(ids)}, None, trains)


def refuse_half_characters(e: Example) -> None:
    """DataError: JSON can contain half of a surrogate pair (\\ud83d alone), which neither a
    tokenizer nor a file takes."""
    turns = (f"{turn.text}{turn.more}" for turn in e.turns)
    try:
        "".join((e.text, e.pair or "", str(e.target), *e.references, *turns)).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"example {e.shown_id} holds half of a character, "
            f"{error.object[error.start]!a}; fix the file"
        ) from None


def numeric_target(example: Example) -> int | float | tuple[int, ...] | None:
    """The label number, value or labels of an example; None: hidden, or a text."""
    return None if isinstance(example.target, str) else example.target


class _CausalWriter:
    """Writes examples for a causal model as tokens."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.special = SpecialTokens(tokenizer)
        self.chats = ChatWriter(tokenizer)

    def prompt(self, example: Example) -> list[int]:
        if example.turns:
            return self.chats.prompt(example)
        # the tokenizer's own call puts its beginning token before the text, so only the first piece
        # goes through it
        first, *rest = MARKS.split(self.special.marked(example.text, example.given))
        ids = [*self._beginning(first), *self.special.ids("".join(rest))]
        return self._ended(ids) if example.eos else ids

    def _beginning(self, text: str) -> list[int]:
        """The text with the tokens that the tokenizer puts around it, except for those at its end.

        Some tokenizers end every text, but the prompt continues. An end token that is in the text
        itself is intended.
        """
        ids = list(self.tokenizer(text)["input_ids"])
        end = self.tokenizer.eos_token_id
        if ids[-1:] != [end]:
            return ids
        own = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        added = _count_at_end(ids, end) - _count_at_end(own, end)
        return ids[: len(ids) - max(added, 0)]

    def _completion(self, example: Example) -> list[int]:
        marked = self.special.marked(str(example.target), example.target_given)
        return self._ended(self.special.ids(marked))

    def _ended(self, ids: list[int]) -> list[int]:
        end = end_token(self.tokenizer)
        return ids if ids[-1:] == [end] else [*ids, end]

    def asked(self, example: Example, room: int, room_is: str) -> list[int]:
        """The prompt of an example. BadRow: it is empty, or longer than the room."""
        ids = self.prompt(example)
        if not ids:
            raise BadRow(
                f"example {example.shown_id} has an empty prompt, which a model cannot continue",
                Cause.EMPTY,
                example.where,
            )
        if len(ids) > room:
            raise BadRow(
                f"example {example.shown_id} has a prompt of {len(ids)} tokens and there is room "
                f"for {max(room, 0)}{room_is and f' ({room_is})'}{self._own_share(example)}; "
                "raise data.max_length or lower decode.max_new_tokens",
                Cause.TOO_LONG,
                example.where,
            )
        return ids

    def _own_share(self, example: Example) -> str:
        """What of a chat's prompt the template writes itself, in words."""
        if not example.turns:
            return ""
        count, beginning = self.chats.own_tokens(example)
        return (
            f"; the chat template writes {count} of the prompt's tokens itself, and begins with "
            f"{shown(beginning, SHOWN_BEGINNING)}"
        )

    def entire(self, example: Example) -> tuple[list[int], list[int]]:
        """The example with its target: all its tokens, and the label of each."""
        if example.turns:
            return self.chats.tokens(example, IGNORE)
        if example.whole:
            ids = self._ended(self._beginning(str(example.target)))
            return ids, ids
        prompt = self.prompt(example)
        completion = self._completion(example)
        # without a prompt nothing precedes the first token of the completion
        labels = [*[IGNORE] * len(prompt), *completion] if prompt else []
        return [*prompt, *completion], labels

    def learned(self, example: Example, data: Data) -> Encoded:
        """The example with its target, truncated.

        BadRow: no trained token is left, or it is longer than `data.too_long` allows.
        """
        most = data.max_length
        ids, trains = self.entire(example)
        if data.too_long != "truncate":
            refuse_longer(example, len(ids), most)
        if all(label == IGNORE for label in trains[1:most]):
            cause = Cause.EMPTY
            why = "its text is empty" if trains else "its prompt is empty"
            if trains and len(ids) > most:
                cause = Cause.TOO_LONG
                why = f"its prompt fills all {most} tokens (data.max_length)"
            problem = f"example {example.shown_id} has no token to train on: {why}"
            raise BadRow(problem, cause, example.where)
        return _encoded(example, ids[:most], trains[:most])


def _count_at_end(ids: Sequence[int], end: int | None) -> int:
    """Number of end tokens at the end."""
    return len(list(takewhile(lambda token: token == end, reversed(ids))))
