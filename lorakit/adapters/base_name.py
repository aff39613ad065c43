"""What an adapter calls its base in adapter_config.json, which other programs load it by."""

from __future__ import annotations

import logging
import os
from functools import cache

from lorakit.models._load import location

log = logging.getLogger(__name__)

SHIPPED = "lorakit:"


def base_name(base: str, base_id: str | None = None) -> str:
    """The hub id where it is known; of a model that ships in the package its folder, which PEFT can load; else `base`.

    A warning, once for each, where that is a folder: on another machine it is not there.
    """
    if base_id is not None:
        return base_id
    if base.startswith(SHIPPED):
        return str(location(base))
    if os.path.isdir(base):
        _warn(base)
    return base


@cache
def _warn(base: str) -> None:
    log.warning(
        "the adapter names its base by the folder %s, which is not there on another machine; give model.id=HUB_ID, "
        "where these weights have a name on the hub",
        base,
    )
