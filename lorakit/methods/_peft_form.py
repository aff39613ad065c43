"""PEFT's form of a method: the names of its tensors and fields in PEFT's files.

`lorakit.adapters` writes and reads adapters by it, and names no method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Fields = Mapping[str, Any]


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
    to_peft: Callable[[Any], dict[str, Any]] = lambda method: {}
    """The method -> its fields of adapter_config.json. Of a `Ranked` method r, alpha, scaling and
    dropout are written and read in any case."""
    from_peft: Callable[[Fields], dict[str, Any]] = lambda config: {}
    """The fields of adapter_config.json -> those of the method, without its targets."""
    unused: tuple[str, ...] = ()
    """Fields that neither function names and that do not change what a trained adapter computes.

    Any other field with a value is refused.
    """
    needs: Fields = field(default_factory=dict)
    """Fields that adapter_config.json must have with these values, as `use_dora: true`."""
    shared: Mapping[str, str] = field(default_factory=dict)
    """Parameter that all deltas share -> PEFT's name for it."""
    writes_shared: bool = True
    """Whether they are written; False: PEFT draws them from the seed, as lorakit does."""
    conv1d: bool = False
    """Whether PEFT's class adapts GPT-2's Conv1D."""


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
