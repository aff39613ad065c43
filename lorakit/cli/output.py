"""What goes where: the one machine-readable result to stdout, everything for people to stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorakit.cli.visible import can_show, json_safe, show_exactly, visible
from lorakit.errors import MetricError

if TYPE_CHECKING:
    from lorakit.cli.screen import Screen

Json = Annotated[
    bool, typer.Option("--json", help="One machine-readable result on stdout; all else on stderr.")
]
Runs = Annotated[Path, typer.Option("--runs", help="Where run folders go.", metavar="DIR")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="key=value sets a value of the recipe, ~key removes one.", metavar="[KEY=VALUE]..."
    ),
]


@cache
def console() -> Screen:
    """stderr, on the main process; silent on the others."""
    from lorakit.cli.screen import on_stderr

    quiet = os.environ.get("RANK", "0") != "0"
    return on_stderr(sys.stderr.isatty(), quiet)


def begin(models: bool = True) -> None:
    """Before a verb works: lorakit's own warnings where people see them, and quiet libraries if it loads models."""
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
    """Of other libraries' messages."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class _ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            console().print(record.getMessage())
        else:
            warn(record.getMessage())


def warn(text: str, word: str = "warning:") -> None:
    """A line that begins with a word in yellow."""
    from lorakit.cli.screen import line

    console().print(line((word, "yellow"), f" {text}"))


def give(result: Mapping[str, Any], as_json: bool) -> None:
    """The machine-readable result, if it was asked for."""
    if not as_json or os.environ.get("RANK", "0") != "0":
        return
    text = json.dumps(_finite(result), ensure_ascii=False)
    # exact for whoever parses it, on any terminal
    show_exactly(
        (json_safe(text) if can_show(json_safe(text)) else json.dumps(_finite(result))) + "\n"
    )


def _finite(value: Any) -> Any:
    # JSON has no NaN
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def _grant(context: typer.Context, granted: bool) -> bool:
    """For as long as the command runs."""
    from lorakit.models._trust import trust_remote_code

    context.with_resource(trust_remote_code(granted))
    return granted


TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        callback=_grant,
        help="Run Python code that comes with the base model, in this call. Only for a source you trust.",
    ),
]
"""A verb that takes it has nothing more to do: the callback grants it."""


def known(scores: Mapping[str, float], failed: Mapping[str, str]) -> dict[str, float]:
    """The scores without those that failed; one of a group is named `meteor_seen`."""
    groups = tuple(f"{name}_" for name in failed)

    def is_lost(metric: str, value: float) -> bool:
        return math.isnan(value) and (metric in failed or metric.startswith(groups))

    return {metric: value for metric, value in scores.items() if not is_lost(metric, value)}


def end_with(failed: Mapping[str, str]) -> None:
    """MetricError for metrics that failed, once all others are given."""
    if not failed:
        return
    reasons = {why: [m for m, other in failed.items() if other == why] for why in failed.values()}
    said = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    raise MetricError(
        f"not computed: {said}. The other metrics are given; the predictions are kept as they are"
    )


def complete_recipe(incomplete: str) -> list[str]:
    """Shell completion of recipe names."""
    from lorakit.recipe.load import names

    return [name for name in names() if name.startswith(incomplete)]


RecipeName = Annotated[
    str,
    typer.Argument(
        help="A recipe file, or a shipped recipe's name.",
        metavar="RECIPE",
        autocompletion=complete_recipe,
    ),
]
