"""A chat in tokens, by the tokenizer's own template: what the assistant said is trained, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorakit.errors import DataError, ModelError
from lorakit.tasks import ASSISTANT, Example, Turn


def chat_prompt(example: Example, tokenizer: Any) -> list[int]:
    """Token ids of the turns before the answer, and of what the template puts before an answer."""
    return tokenizer(_render(example, example.turns, tokenizer, ask=True), add_special_tokens=False)["input_ids"]


def chat_tokens(example: Example, tokenizer: Any, ignore: int) -> tuple[list[int], list[int]]:
    """Token ids of the chat with its answer, and of each token of the assistant's turns its id, of others `ignore`.

    A turn of the assistant is what the template writes after its prompt for an answer: the end-of-turn mark is in it.
    DataError: the template refuses these turns. ModelError: there is no template, or it rewrites earlier turns.
    """
    turns = (*example.turns, Turn(ASSISTANT, str(example.target)))
    whole = _render(example, turns, tokenizer)
    spans = []
    for number, turn in enumerate(turns):
        if turn.role != ASSISTANT or (example.last_turn_only and number < len(turns) - 1):
            continue
        before = _render(example, turns[:number], tokenizer, ask=True)
        after = _render(example, turns[: number + 1], tokenizer)
        if not (whole.startswith(before) and whole.startswith(after) and after.startswith(before)):
            raise ModelError(
                f"the chat template writes turn {number + 1} of {example.id} in another way when others follow, "
                "so it would train what is never asked; train the last answer only (task.train_on=last)"
            )
        spans.append((len(before), len(after)))
    if not tokenizer.is_fast:
        raise ModelError(f"{type(tokenizer).__name__} cannot say where its tokens stand in a text, which a chat needs")
    found = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    trains = [
        token if any(start <= a and b <= end and a < b for start, end in spans) else ignore
        for token, (a, b) in zip(found["input_ids"], found["offset_mapping"], strict=True)
    ]
    return found["input_ids"], trains


def end_of_turn(tokenizer: Any) -> list[int]:
    """The special token that the template ends an answer with, at which a text is over; empty where it has none."""
    example, said = Example("chat", "?", target="@"), "@"
    text = _render(example, [Turn("user", "?"), Turn(ASSISTANT, said)], tokenizer)
    ids = tokenizer(text[text.rindex(said) + 1 :].lstrip(), add_special_tokens=False)["input_ids"]
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return [token for token in ids[:1] if token in special]


def _render(example: Example, turns: Sequence[Turn], tokenizer: Any, ask: bool = False) -> str:
    if not tokenizer.chat_template:
        raise ModelError(
            "this tokenizer has no chat template; take a base that is made for chats, or give one with "
            "model.chat_template=FILE.jinja"
        )
    from jinja2.exceptions import TemplateError

    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
    except (TemplateError, TypeError, ValueError) as error:
        where = f" ({example.where})" if example.where else ""
        raise DataError(f"example {example.id}{where}: the chat template refuses these turns: {error}") from None
