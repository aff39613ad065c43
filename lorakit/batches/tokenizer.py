"""The attributes of a transformers tokenizer that this package uses.

The types of transformers' own class are unions of everything that a special token may be.
"""

from __future__ import annotations

from typing import Any, Protocol


class Tokenizer(Protocol):
    """A fast or slow tokenizer of transformers."""

    eos_token: str | None
    eos_token_id: int | None
    pad_token_id: int | None
    unk_token_id: int | None
    all_special_tokens: list[str]
    all_special_ids: list[int]
    special_tokens_map: dict[str, Any]
    model_input_names: list[str]
    truncation_side: str
    chat_template: str | None
    name_or_path: str
    is_fast: bool
    backend_tokenizer: Any
    """The tokenizers library's, of a fast one."""

    def __call__(self, text: str | list[str], *args: Any, **options: Any) -> Any:
        """A BatchEncoding."""
        ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def get_chat_template(self) -> str: ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...
