"""The numbers of tokens that a prefix method adds, whatever of those tokens it trains."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar, TypeVar

from pydantic import Field, model_validator

from lorakit.methods._base import Method
from lorakit.methods._peft_form import PromptForm

Self = TypeVar("Self", bound="PromptTokens")


class PromptTokens(Method, ABC):
    """A method that adds tokens to every row. It is for decoders, and cannot be merged."""

    freezes_base: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    peft_prompt: ClassVar[PromptForm | None] = None
    """PEFT's form of the method without an infix, if PEFT has it."""
    prefix: int = Field(default=8, ge=0, le=100_000)
    """l_p: number of tokens before the prompt."""
    infix: int = Field(default=8, ge=0, le=100_000)
    """l_i: number of tokens between the prompt and the answer."""

    @model_validator(mode="after")
    def _some(self: Self) -> Self:
        if not self.added_tokens:
            raise ValueError("prefix and infix are both 0: there is nothing to train")
        return self

    @property
    def added_tokens(self) -> int:
        return self.prefix + self.infix
