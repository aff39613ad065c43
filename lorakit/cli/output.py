"""Output of the verbs: one JSON object or table on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from lorakit.cli.visible import can_show, json_safe, show_exactly, visible
from lorakit.errors import MetricError

if TYPE_CHECKING:
    from lorakit.cli.screen import Screen


@cache
def console() -> Screen:
    """The console on stderr; it is silent in all processes but the main one."""
    from lorakit.cli.screen import on_stderr

    quiet = os.environ.get("RANK", "0") != "0"
    return on_stderr(sys.stderr.isatty(), quiet)


def begin(models: bool = True) -> None:
    """Set up logging for a verb. models: it loads models, so transformers is silenced too."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    debug = os.environ.get("LORAKIT_DEBUG") == "1"
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Visible("%(levelname)s: %(message)s"))
    logging.getLogger("lorakit").setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("lorakit").handlers = [_ConsoleHandler()]
    logging.getLogger("lorakit").propagate = False
    if models and not debug:
        from transformers.utils import logging as theirs

        theirs.set_verbosity_error()
        theirs.disable_progress_bar()


class _Visible(logging.Formatter):
    """Makes control characters in other libraries' messages visible."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class _ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            console().print(record.getMessage())
        else:
            warn(record.getMessage())


def warn(text: str, word: str = "warning:") -> None:
    """Print a line that begins with a word in yellow."""
    from lorakit.cli.screen import line

    console().print(line((word, "yellow"), f" {text}"))


def give(result: Mapping[str, Any], as_json: bool) -> None:
    """Print the result as JSON on stdout, if --json was given."""
    if not as_json or os.environ.get("RANK", "0") != "0":
        return
    text = json_safe(json.dumps(_finite(result), ensure_ascii=False))
    if not can_show(text):
        text = json.dumps(_finite(result))
    show_exactly(text + "\n")


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def known(scores: Mapping[str, float], failed: Mapping[str, str]) -> dict[str, float]:
    """The scores without those of failed metrics."""
    groups = tuple(f"{name}_" for name in failed)  # `meteor_seen` is METEOR of one group

    def is_lost(metric: str, value: float) -> bool:
        return math.isnan(value) and (metric in failed or metric.startswith(groups))

    return {metric: value for metric, value in scores.items() if not is_lost(metric, value)}


def end_with(failed: Mapping[str, str]) -> None:
    """MetricError, for a verb's last line: some metrics failed, and all others were given."""
    if not failed:
        return
    reasons = {why: [m for m, other in failed.items() if other == why] for why in failed.values()}
    said = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    raise MetricError(
        f"not computed: {said}. The other metrics were given, and the predictions are kept"
    )
