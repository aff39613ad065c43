"""The comparison of a base model with the one that an adapter was trained on."""

from __future__ import annotations

import logging
from typing import Any

from lorakit.adapters.base_config import changed_settings, settings_of
from lorakit.adapters.files import AdapterFile
from lorakit.adapters.fingerprint import Digests, digests_of, same
from lorakit.errors import AdapterError

log = logging.getLogger(__name__)

_MAX_CHANGES = 4
"""Changed settings that a message names."""
_REGARDLESS = ", or --any-base to use this one regardless"
"""What else a user can do, where the command has that option."""


def refuse_other_base(file: AdapterFile, model: Any, overridable: bool = True) -> None:
    """AdapterError: the model's weights or settings are not those that the adapter was trained on.

    Nothing is known, and so nothing refused, about the base of an adapter that lorakit did not
    write. overridable: whether the command has --any-base.
    """
    if file.about is None:
        return
    digests = digests_of(model, file.about.fresh, file.about.fingerprint)
    refuse_other_weights(file, digests, overridable)
    refuse_other_settings(file, model, overridable)


def refuse_other_weights(file: AdapterFile, found: Digests, overridable: bool = True) -> None:
    """AdapterError: `found`, the digests of a base, differ from the adapter's fingerprint.

    Logs a warning if another version of lorakit wrote the fingerprint and it cannot be compared.
    overridable: as for `refuse_other_base`.
    """
    about = file.about
    if about is None:
        return
    agreed = same(about.fingerprint, found.digests())
    if agreed is None:
        log.warning(
            "%s was written by lorakit %s with a fingerprint of its base that cannot be compared "
            "with this model: make sure that it is %s",
            file.folder,
            about.lorakit,
            about.base,
        )
    elif not agreed:
        raise AdapterError(
            f"{file.folder} was trained on other weights than these: its base is {about.base} "
            f"(revision {about.revision or 'not recorded'}). Give that base"
            f"{_REGARDLESS if overridable else ''}."
        )


def refuse_other_settings(file: AdapterFile, model: Any, overridable: bool = True) -> None:
    """AdapterError: the base's configuration gives other outputs for the same weights."""
    if file.about is None or not file.about.base_config:
        return
    changes = changed_settings(file.about.base_config, settings_of(model.config))
    if changes:
        raise AdapterError(
            f"{file.folder} was trained on {file.about.base} with another configuration: "
            f"{'; '.join(changes[:_MAX_CHANGES])}. Give the base as it was"
            f"{_REGARDLESS if overridable else ''}."
        )
