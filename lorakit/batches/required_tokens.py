"""Special tokens that a tokenizer must have: one that ends a text, and one to pad rows with."""

from __future__ import annotations

from lorakit.errors import ModelError
from lorakit.tokenizer import Tokenizer

WHAT_TO_DO = "name one of its tokens in tokenizer_config.json of the base model"


def end_token(tokenizer: Tokenizer) -> int:
    """The token that ends a text. ModelError: the tokenizer does not have one."""
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer ({type(tokenizer).__name__}) has no end-of-text token (eos_token), "
            f"so a model cannot learn where a text ends; {WHAT_TO_DO}"
        )
    return tokenizer.eos_token_id


def refuse_no_padding(tokenizer: Tokenizer) -> None:
    """ModelError: the tokenizer has no padding token, and no end-of-text token to pad with."""
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer ({type(tokenizer).__name__}) has neither an end-of-text token "
            "(eos_token) nor a padding token (pad_token), so texts cannot be ended and batches "
            f"cannot be padded; {WHAT_TO_DO}"
        )
