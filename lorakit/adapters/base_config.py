"""The settings of a base's configuration that decide its outputs.

The same weights give other outputs with another attention, scaling or number of heads, so an
adapter records these settings next to the fingerprint of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_IGNORED = frozenset(
    "architectures auto_map dtype torch_dtype transformers_version id2label label2id num_labels "
    "problem_type finetuning_task use_cache quantization_config pad_token_id bos_token_id "
    "eos_token_id unk_token_id return_dict output_attentions output_hidden_states "
    "gradient_checkpointing vocab_size language license".split()
)
"""Names, labels, settings of the loader or the task, and sizes that the tensors show themselves."""
_TRAINING_ONLY = ("dropout", "pdrop", "initializer")
"""Parts of the names of settings that matter in training, or before it."""
_SHOWN_CHARACTERS = 80
"""Of a value, in a message."""


def settings_of(config: Any) -> dict[str, Any]:
    """Every setting that may decide an output, as plain JSON data, nested settings included.

    config: a transformers configuration.
    """
    return _deciding(json.loads(json.dumps(config.to_dict(), default=str)))


def _deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _deciding(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if key not in _IGNORED
        and not key.startswith("_")
        and not any(part in key for part in _TRAINING_ONLY)
    }


def changed_settings(then: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """`hidden_act was "gelu", is "relu"` for every setting that differs.

    A setting that only one of them has is left out, because versions of transformers differ in
    their settings. where: prefix of nested names.
    """
    found = []
    for key, was in then.items():
        if key not in now:
            continue
        current = now[key]
        if isinstance(was, Mapping) and isinstance(current, Mapping):
            found += changed_settings(was, current, f"{where}{key}.")
        elif was != current:
            found.append(f"{where}{key} was {_shown(was)}, is {_shown(current)}")
    return found


def _shown(value: object) -> str:
    return json.dumps(value)[:_SHOWN_CHARACTERS]
