"""An example in tokens, and which of them are trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorakit.batches.chat import chat_prompt, chat_tokens
from lorakit.errors import DataError, ModelError
from lorakit.nn.settings import setting
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


def refuse_too_long(data: Data, tokenizer: Any, config: Any, added: int = 0) -> None:
    """ModelError where `data.max_length` is more than the model has positions for. added: tokens of the method."""
    limits = [setting(config, "max_position_embeddings"), getattr(tokenizer, "model_max_length", None)]
    known = [n for n in limits if isinstance(n, int) and 0 < n < 10**9]
    if known and data.max_length + added > min(known):
        own = f" and the {added} tokens of the method are" if added else " is"
        raise ModelError(
            f"data.max_length {data.max_length}{own} more than the {min(known)} tokens that the model takes"
        )


def encode(examples: Sequence[Example], tokenizer: Any, head: Head, data: Data) -> list[Encoded]:
    """Tokens for training, and for scoring where the head gives logits. Cuts at `data.max_length`, and says so."""
    _refuse_half_characters(examples)
    if head is Head.CAUSAL:
        encoded = [_encode_causal(example, tokenizer, data.max_length) for example in examples]
    else:
        pairs = any(e.pair is not None for e in examples)
        fields = tokenizer(
            [e.text for e in examples],
            [e.pair or "" for e in examples] if pairs else None,
            truncation=True,
            max_length=data.max_length,
        )
        encoded = [
            Encoded(e.id, {name: fields[name][i] for name in fields}, None if e.target is None else number(e))
            for i, e in enumerate(examples)
        ]
    say_cut(encoded, data.max_length)
    return encoded


def say_cut(encoded: Sequence[Encoded], most: int) -> None:
    """In the log, how many examples are as long as they may be."""
    if cut := sum(e.length == most for e in encoded):
        log.info("%d of %d examples reach %d tokens and may be cut there", cut, len(encoded), most)


def encode_prompts(examples: Sequence[Example], tokenizer: Any, room: int) -> list[Encoded]:
    """Prompts for generation, `room` tokens at most; a longer one is a DataError: a cut prompt asks something else."""
    _refuse_half_characters(examples)
    encoded = []
    for example in examples:
        ids = _prompt_ids(example, tokenizer)
        if len(ids) > room:
            raise DataError(
                f"example {named(example)} has a prompt of {len(ids)} tokens and there is room for {room}; "
                "raise data.max_length or lower decode.max_new_tokens"
            )
        encoded.append(Encoded(example.id, {"input_ids": ids, "attention_mask": [1] * len(ids)}, None))
    return encoded


def _refuse_half_characters(examples: Sequence[Example]) -> None:
    """JSON can write half of a character (\\ud83d alone); no tokenizer takes it, and no file."""
    for e in examples:
        try:
            "".join((e.text, e.pair or "", str(e.target), *e.references, *(t.text for t in e.turns))).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"example {named(e)} holds half of a character, {error.object[error.start]!a}; mend the file"
            ) from None


def number(example: Example) -> int | float:
    """The target of an example that has a label or a value."""
    assert not isinstance(example.target, str)
    assert example.target is not None
    return example.target


def _prompt_ids(example: Example, tokenizer: Any) -> list[int]:
    if example.turns:
        return chat_prompt(example, tokenizer)
    ids = tokenizer(example.text)["input_ids"]
    while ids and ids[-1] == tokenizer.eos_token_id:  # some tokenizers end every text; the prompt goes on
        ids = ids[:-1]
    return [*ids, tokenizer.eos_token_id] if example.eos else ids


def _encode_causal(example: Example, tokenizer: Any, max_length: int) -> Encoded:
    if example.turns:
        ids, trains = chat_tokens(example, tokenizer, IGNORE)
        why = f"the assistant says nothing within {max_length} tokens (data.max_length)"
    else:
        prompt = _prompt_ids(example, tokenizer)
        ids = [*prompt, *tokenizer(str(example.target), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        trains = [IGNORE] * len(prompt) + ids[len(prompt) :] if prompt else []
        why = f"its prompt fills all {max_length} tokens (data.max_length)" if prompt else "its prompt is empty"
    if not any(label != IGNORE for label in trains[1:max_length]):
        raise DataError(f"example {named(example)} has no token to train on: {why}")
    ids = ids[:max_length]
    return Encoded(example.id, {"input_ids": ids, "attention_mask": [1] * len(ids)}, None, trains[:max_length])


def named(example: Example) -> str:
    """The example for a message: its id, and where it stands."""
    return f"{example.id} ({example.where})" if example.where else example.id
