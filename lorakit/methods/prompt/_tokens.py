"""How many tokens a prefix has: the same two numbers, whatever of them is trained."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar, TypeVar

from pydantic import Field, model_validator

from lorakit.methods._base import Method

Self = TypeVar("Self", bound="PromptTokens")


class PromptTokens(Method, ABC):
    """A method that gives every row tokens of its own. It is for decoders, and no weight can hold it."""

    freezes_base: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    prefix: int = Field(default=8, ge=0, le=100_000)
    """l_p: tokens in front of the prompt."""
    infix: int = Field(default=8, ge=0, le=100_000)
    """l_i: tokens behind the prompt, before the answer."""

    @model_validator(mode="after")
    def _some(self: Self) -> Self:
        if not self.added_tokens:
            raise ValueError("prefix and infix are both 0: there is nothing to train")
        return self

    @property
    def added_tokens(self) -> int:
        return self.prefix + self.infix
