"""The tokens that a tokenizer must have beside its words: one to pad rows with, and one that ends a
text."""

from __future__ import annotations

from typing import Any

from lorakit.errors import ModelError

HOW = "name one of its tokens in tokenizer_config.json of the base model"


def end_of(tokenizer: Any) -> int:
    """The token that ends a text. ModelError: the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer ({type(tokenizer).__name__}) has no end-of-text token (eos_token), "
            f"so a model cannot learn where a text ends; {HOW}"
        )
    return tokenizer.eos_token_id


def refuse_no_padding(tokenizer: Any) -> None:
    """ModelError: the tokenizer has no token to pad with, nor an end-of-text token in its place."""
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer ({type(tokenizer).__name__}) has neither an end-of-text token "
            f"(eos_token) nor a padding token (pad_token), so texts cannot be ended, nor batches "
            f"filled; {HOW}"
        )
