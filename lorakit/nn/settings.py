"""Settings of the text model in a configuration, also where it is one part of several (images)."""

from __future__ import annotations

from typing import Any


def text_config(config: Any) -> Any:
    """The part for the text model; the configuration itself where it has no parts."""
    find = getattr(config, "get_text_config", None)
    if find is None:
        return config
    try:
        found = find()
    except ValueError:  # several parts could be meant
        return config
    return found if hasattr(found, "to_dict") else config


def setting(config: Any, name: str, default: Any = None) -> Any:
    """`config.name`, else the text configuration's, else `default`. None counts as not set."""
    for part in (config, text_config(config)):
        if (value := getattr(part, name, None)) is not None:
            return value
    return default
