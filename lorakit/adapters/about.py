"""`About`: what an adapter was trained for, stored as JSON in the metadata of its tensor file.

The field names are part of the file format. Older adapters must stay readable, so a field is never
renamed, and a new one has a default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lorakit.config import first_problem
from lorakit.errors import AdapterError, InputError
from lorakit.methods import Method, methods


@dataclass(frozen=True)
class About:
    """An adapter's base model, head, task and method."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    base: str
    """Hub id or folder of the base model."""
    revision: str | None
    """Commit of the base on the hub; None for a folder."""
    model_type: str
    head: str
    labels: list[str]
    task: dict[str, Any]
    """The task's configuration: how examples are rendered and scored."""
    max_length: int
    method: dict[str, Any]
    """The method's name and fields."""
    fresh: list[str]
    """Parameters that were newly initialised, which the adapter holds."""
    fingerprint: str
    """Of the base's weights."""
    lorakit: str
    """Version of lorakit that wrote the adapter."""
    model_config: dict[str, Any] = field(default_factory=dict)
    """Settings of the base's configuration that the recipe changed."""
    new_tokens: list[str] = field(default_factory=list)
    """Texts that were made tokens."""
    decode: dict[str, Any] = field(default_factory=dict)
    """The recipe's decoding settings, for a causal model."""
    base_config: dict[str, Any] = field(default_factory=dict)
    """The settings of the base's configuration that decide its outputs; empty: not recorded."""
    base_id: str | None = None
    """Hub id of a base that is a folder (the recipe's `model.id`)."""
    tokenizer: dict[str, str] = field(default_factory=dict)
    """Digests of the base's tokenizer (`tokenizer_digest`); empty: not recorded."""


_ABOUT = TypeAdapter(About)


def parse_about(text: str, where: str) -> About:
    """The `About` of a tensor file's metadata. where: the file. AdapterError: it does not fit."""
    try:
        return _ABOUT.validate_json(text)
    except ValidationError as error:
        raise AdapterError(
            f"{where} has a header that this version of lorakit cannot read: {first_problem(error)}"
        ) from error


def method_of(about: About) -> Method:
    """The method with its fields. AdapterError: this version of lorakit does not have it."""
    try:
        return methods.get(str(about.method["name"])).model_validate(about.method)
    except (ValidationError, KeyError, InputError) as error:
        why = first_problem(error) if isinstance(error, ValidationError) else error
        raise AdapterError(
            f"this version of lorakit does not know the adapter's method: {about.method} ({why})"
        ) from error
