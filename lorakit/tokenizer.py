"""The attributes of a transformers tokenizer that this package uses.

The types of transformers' own class are unions of everything that a special token may be.
"""

from __future__ import annotations

from typing import Any, Protocol


class Tokenizer(Protocol):
    """A fast or slow tokenizer of transformers."""

    bos_token: str | None
    bos_token_id: int | None
    eos_token: str | None
    eos_token_id: int | None
    unk_token_id: int | None
    pad_token: str
    pad_token_id: int
    """None until `lorakit.bases` has given it one, and where a batch cannot be padded."""
    all_special_tokens: list[str]
    all_special_ids: list[int]
    special_tokens_map: dict[str, Any]
    model_input_names: list[str]
    model_max_length: int
    padding_side: str
    truncation_side: str
    chat_template: str | dict[str, str] | None
    name_or_path: str
    is_fast: bool
    backend_tokenizer: Any
    """The tokenizers library's, of a fast one."""

    def __call__(self, text: str | list[str], *args: Any, **options: Any) -> Any:
        """A BatchEncoding."""
        ...

    def __len__(self) -> int: ...

    def get_vocab(self) -> dict[str, int]: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def add_tokens(self, new_tokens: list[str], special_tokens: bool = False) -> int: ...

    def convert_tokens_to_ids(self, tokens: Any) -> Any: ...

    def convert_ids_to_tokens(self, ids: Any) -> Any: ...

    def decode(self, token_ids: Any, **options: Any) -> Any: ...

    def batch_decode(self, sequences: Any, **options: Any) -> list[str]: ...

    def save_pretrained(self, save_directory: Any) -> Any: ...

    def get_chat_template(
        self, chat_template: str | None = None, tools: list[Any] | None = None
    ) -> str: ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...
