"""PEFT's form of a method: the names of its tensors and fields in PEFT's files.

`lorakit.adapters` writes and reads adapters by it, and names no method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lorakit.errors import AdapterError

Fields = Mapping[str, Any]
_REQUIRED = object()
"""In the place of a default: a file must have the field."""


@dataclass(frozen=True)
class PeftForm:
    """One module's tensors and the fields of adapter_config.json. Only of entire modules."""

    type: str
    """`peft_type` of adapter_config.json."""
    tensors: Mapping[str, str]
    """Parameter of a delta -> the end of PEFT's name, `base_model.model.PATH.END`.

    `T:END`: the tensor is transposed there.
    """
    optional: tuple[str, ...] = ()
    """Those of `tensors` that a module has or lacks by its shape; not the first of them."""
    fields: Mapping[str, str | tuple[str, Any]] = field(default_factory=dict)
    """The method's field -> PEFT's, or (PEFT's, the value where a file lacks it). Of a `Ranked`
    method r, alpha, scaling and dropout are written and read in any case."""
    to_peft: Callable[[Any], dict[str, Any]] = lambda method: {}
    """The method -> what is written besides `fields`."""
    from_peft: Callable[[Fields], dict[str, Any]] = lambda config: {}
    """adapter_config.json -> the method's fields that are not in `fields`."""
    others: tuple[str, ...] = ()
    """PEFT's fields that `from_peft` reads, or that do not change what a trained adapter computes.

    A field that is named nowhere here is refused if it has a value.
    """
    needs: Fields = field(default_factory=dict)
    """Fields that adapter_config.json must have with these values, as `use_dora: true`."""
    shared: Mapping[str, str] = field(default_factory=dict)
    """Parameter that all deltas share -> PEFT's name for it."""
    writes_shared: bool = True
    """Whether they are written; False: PEFT draws them from the seed, as lorakit does."""
    conv1d: bool = False
    """Whether PEFT's class adapts GPT-2's Conv1D."""

    def written(self, method: Any) -> dict[str, Any]:
        """The method's fields of adapter_config.json."""
        named = {theirs: getattr(method, own) for own, theirs, _ in self._entries()}
        return {**named, **self.to_peft(method)}

    def read(self, config: Fields) -> dict[str, Any]:
        """The method's fields, without its targets. AdapterError: the file lacks one."""
        found = {}
        for own, theirs, default in self._entries():
            found[own] = config.get(theirs, default)
            if found[own] is _REQUIRED:
                raise AdapterError(
                    f"adapter_config.json of type {self.type} lacks the field {theirs}"
                )
        if "dropout" in found:
            # null in files of some versions
            found["dropout"] = found["dropout"] or 0.0
        return {**found, **self.from_peft(config)}

    def known(self) -> set[str]:
        """The fields that a file may have, besides those of every adapter."""
        return {theirs for _, theirs, _ in self._entries()} | {*self.needs, *self.others}

    def _entries(self) -> Iterator[tuple[str, str, Any]]:
        """(the method's field, PEFT's, the value where a file lacks it)."""
        for own, entry in self.fields.items():
            theirs, default = (entry, _REQUIRED) if isinstance(entry, str) else entry
            yield own, theirs, default


@dataclass(frozen=True)
class PromptForm:
    """PEFT's form of a method that adds tokens before the prompt: `prompt_embeddings` (tokens, d).

    PEFT has no place for tokens elsewhere.
    """

    type: str
    """`peft_type` of adapter_config.json."""
    reads: tuple[str, ...] = ()
    """The types that this method reads from other programs, whose files hold the vectors alone."""
    to_peft: Callable[[Any], dict[str, Any]] = lambda method: {}
    """The method -> its own fields of adapter_config.json."""
