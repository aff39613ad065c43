"""Tokens of a method's own in the rows of a decoder: prefixes and infixes."""

from __future__ import annotations

from lorakit.methods._peft_form import PromptForm
from lorakit.methods.prompt._tokens import PromptAttachment, PromptTokens

__all__ = ["PromptAttachment", "PromptForm", "PromptTokens"]
