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
from lorakit.errors import DataError
from lorakit.tasks import Data, Example, Head

log = logging.getLogger(__name__)


def encode(
    examples: Sequence[Example], tokenizer: Tokenizer, head: Head, data: Data
) -> list[Encoded]:
    """Tokens for training, and for evaluation if the head gives logits.

    Examples are truncated at `data.max_length`, and the log says how many; for spans, a longer one
    becomes several windows with its id. DataError: an example
    without a token to train, or with a character that cannot be encoded.
    """
    _refuse_half_characters(examples)
    if head is Head.CAUSAL:
        writer = _CausalWriter(tokenizer)
        encoded = [writer.learned(example, data.max_length) for example in examples]
    elif head is Head.TOKENS:
        encoded = encode_words(examples, tokenizer, data.max_length)
    elif head is Head.SPANS:
        return encode_spans(examples, tokenizer, data.max_length)
    else:
        fields = SpecialTokens(tokenizer).fields(examples, data.max_length)
        encoded = [
            Encoded(e.id, {name: fields[name][i] for name in fields}, numeric_target(e))
            for i, e in enumerate(examples)
        ]
    warn_of_texts(examples, tokenizer, head)
    log_truncated(encoded, data.max_length)
    return encoded


def warn_of_texts(examples: Sequence[Example], tokenizer: Tokenizer, head: Head) -> None:
    """Warnings about what the tokenizer does with these texts."""
    warn_of_special_tokens(examples, tokenizer, head)
    if examples and examples[0].turns and tokenizer.chat_template:
        warn_of_template(tokenizer)


def log_truncated(encoded: Sequence[Encoded], most: int) -> None:
    """Log how many examples have the maximum length, and so may be truncated."""
    reached = sum(e.length == most for e in encoded)
    if reached:
        log.info(
            "%d of %d examples reach %d tokens and may be cut there", reached, len(encoded), most
        )


def encode_prompts(examples: Sequence[Example], tokenizer: Tokenizer, room: int) -> list[Encoded]:
    """Prompts for generation, of `room` tokens at most.

    DataError: an empty prompt, or a longer one, because a truncated prompt asks something else.
    """
    _refuse_half_characters(examples)
    encoded = []
    writer = _CausalWriter(tokenizer)
    for example in examples:
        ids = writer.prompt(example)
        if not ids:
            raise DataError(
                f"example {example.shown_id} has an empty prompt, which a model cannot continue"
            )
        if len(ids) > room:
            raise DataError(
                f"example {example.shown_id} has a prompt of {len(ids)} tokens and there is room "
                f"for {room}; raise data.max_length or lower decode.max_new_tokens"
            )
        encoded.append(_encoded(example, ids))
    return encoded


def _encoded(example: Example, ids: list[int], trains: Sequence[int] = ()) -> Encoded:
    return Encoded(example.id, {"input_ids": ids, "attention_mask": [1] * len(ids)}, None, trains)


def _refuse_half_characters(examples: Sequence[Example]) -> None:
    """JSON can contain half of a surrogate pair (\\ud83d alone), which neither a tokenizer nor a
    file takes."""
    for e in examples:
        turns = (turn.text for turn in e.turns)
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

    def learned(self, example: Example, max_length: int) -> Encoded:
        """The example with its target, truncated. DataError: no trained token is left."""
        if example.turns:
            ids, trains = self.chats.tokens(example, IGNORE)
            why = f"the assistant says nothing within {max_length} tokens (data.max_length)"
        else:
            prompt = self.prompt(example)
            completion = self._completion(example)
            ids = [*prompt, *completion]
            trains = [*[IGNORE] * len(prompt), *completion]
            why = f"its prompt fills all {max_length} tokens (data.max_length)"
            if not prompt:
                trains = []  # nothing precedes the first token of the completion
                why = "its prompt is empty"
        if all(label == IGNORE for label in trains[1:max_length]):
            raise DataError(f"example {example.shown_id} has no token to train on: {why}")
        return _encoded(example, ids[:max_length], trains[:max_length])


def _count_at_end(ids: Sequence[int], end: int | None) -> int:
    """Number of end tokens at the end."""
    return len(list(takewhile(lambda token: token == end, reversed(ids))))
