"""Chats in a column of a file: a list of messages as turns, and the answer that is learned."""

from __future__ import annotations

from typing import Any

from lorakit.errors import DataError, shown
from lorakit.files.bad_rows import BadRow, Cause
from lorakit.tasks._base import ASSISTANT, Turn

KNOWN_KEYS = ("role", "content", "name")
"""`name` is accepted and ignored. Other keys, such as tool calls, would change the chat."""


def turns_and_answer(value: Any, where: str, hidden: bool) -> tuple[tuple[Turn, ...], str | None]:
    """The turns before the assistant's last one, and the text of that one.

    What follows the assistant's last turn is left out. hidden: the answer may be missing, and the
    chat then ends with the turn to answer. DataError: not a chat, or one without an answer.
    """
    if not isinstance(value, list) or not value:
        raise DataError(
            f'{where} holds {shown(value)}; give a list of {{"role": ..., "content": ...}}'
        )
    turns = [_turn(message, f"{where}, message {i}") for i, message in enumerate(value, 1)]
    last = max((i for i, turn in enumerate(turns) if turn.role == ASSISTANT), default=None)
    if hidden and (last is None or last < len(turns) - 1):
        return tuple(turns), None
    if last is None:
        problem = f"{where}: no turn of the assistant, so there is nothing to learn"
        raise BadRow(problem, Cause.EMPTY)
    if last == 0:
        raise DataError(
            f"{where}: the assistant's only turn is the first, so it does not answer anything"
        )
    return tuple(turns[:last]), turns[last].text


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise DataError(f'{where}: {shown(message)} is not {{"role": ..., "content": ...}}')
    text = message.get("content")
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"{where}: its content is {shown(text)}; only texts that are not empty are read"
        )
    others = sorted(key for key, value in message.items() if key not in KNOWN_KEYS and value)
    if others:
        raise DataError(
            f"{where}: {others[0]!r} is not read, and ignoring it would change the chat; remove it"
        )
    return Turn(message["role"], text)
