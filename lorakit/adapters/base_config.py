"""The settings of a base's configuration that decide what it computes: weights alone do not say which attention, which
scaling or how many heads they are used with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_IGNORED = frozenset(
    "architectures auto_map dtype torch_dtype transformers_version id2label label2id num_labels problem_type "
    "finetuning_task use_cache quantization_config pad_token_id bos_token_id eos_token_id unk_token_id return_dict "
    "output_attentions output_hidden_states gradient_checkpointing vocab_size language license".split()
)
"""Names, labels, and what the loader or a task sets; sizes of tensors are compared with the tensors."""
_TRAINING = ("dropout", "pdrop", "initializer")
"""Parts of names that matter while a model is trained, or before."""


def settings_of(config: Any) -> dict[str, Any]:
    """Every setting that may decide an output, as plain JSON data, nested ones included."""
    return _plain(json.loads(json.dumps(config.to_dict(), default=str)))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _plain(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if key not in _IGNORED
        and not key.startswith("_")
        and not any(part in key for part in _TRAINING)
    }


def changed_settings(then: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """`hidden_act was "gelu", is "relu"`, of every setting that both have and that differs.

    A setting that one of them does not have is left out: another version of transformers has other settings.
    """
    found = []
    for key in then:
        if key not in now:
            continue
        was, is_ = then[key], now[key]
        if isinstance(was, Mapping) and isinstance(is_, Mapping):
            found += changed_settings(was, is_, f"{where}{key}.")
        elif was != is_:
            found.append(f"{where}{key} was {_said(was)}, is {_said(is_)}")
    return found


def _said(value: Any) -> str:
    return json.dumps(value)[:80]
