"""Loading without numbers: transformers' loading report, made from the headers of the files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from lorakit.bases.files import shapes_of, weight_files
from lorakit.models import Model

if TYPE_CHECKING:
    from transformers import PretrainedConfig

log = logging.getLogger(__name__)


def report_from_headers(
    model: nn.Module, config: PretrainedConfig, spec: Model
) -> Mapping[str, Any] | None:
    """The report of loading the checkpoint into `model`: missing, unexpected, mismatched keys.

    None if the files are not on this machine or if only their numbers could tell. ModelError: a
    damaged file.
    """
    files = weight_files(spec, local=True)
    if not files or getattr(config, "quantization_config", None) is not None:
        return None
    shapes: Any = shapes_of(files)
    cls: Any = type(model)
    try:
        with _transformers_silent():
            _, report = cls.from_pretrained(
                None,
                config=config,
                state_dict=shapes,
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # a conversion that needs numbers: loading itself reports the fault
        log.debug("the headers of %s cannot be loaded: %r", spec.name, error)
        return None
    return report


@contextmanager
def _transformers_silent() -> Iterator[None]:
    """No progress bar, and no report of the new head; loading itself shows both again."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()
