"""The name of the base in adapter_config.json, by which other programs load it."""

from __future__ import annotations

import logging
import os
from functools import cache

from lorakit.bases.files import SHIPPED, location

log = logging.getLogger(__name__)


def base_name(base: str, base_id: str | None = None) -> str:
    """The hub id if it is known; for a base that ships in the package its folder; else `base`.

    Logs a warning, once per folder, if `base` is a folder: it may not exist on another machine.
    """
    if base_id is not None:
        return base_id
    if base.startswith(SHIPPED):
        return location(base)  # PEFT can load a folder, but not lorakit's own names
    if os.path.isdir(base):
        _warn_of_folder(base)
    return base


@cache
def _warn_of_folder(base: str) -> None:
    log.warning(
        "the adapter names its base by the folder %s, which may not exist on another machine; give "
        "model.id=HUB_ID if these weights have a name on the hub",
        base,
    )
