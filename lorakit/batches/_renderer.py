"""Runs as a program of its own: chats by a template that nobody has looked at, with an end to its time and memory.

It reads a line of JSON per request and answers with one: {"text": ...}, or {"error": ..., "line": ...} where the
template fails. A template that takes too long ends the program.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path

SECONDS = float(os.environ.get("LORAKIT_TEMPLATE_SECONDS") or 10)
"""Of processor time, for one chat. Ordinary templates need a thousandth of one."""
MEMORY = 2**30
"""Bytes that templates may have."""
CHARACTERS = 64 * 2**20
"""That a chat may become."""


def main() -> None:
    sys.path.pop(0)  # this folder, whose modules are not meant to be found without their package
    from transformers.utils import chat_template_utils  # noqa: F401 (before memory is counted)

    _bound_memory()
    settings: dict = {}
    for line in sys.stdin:
        asked = json.loads(line)
        settings = asked.get("settings", settings)
        print(json.dumps(_answer(settings, asked)), flush=True)


def _answer(settings: dict, asked: dict) -> dict:
    from transformers.utils.chat_template_utils import render_jinja_template

    _alarm(SECONDS)
    try:
        found = render_jinja_template(
            conversations=[asked["messages"]],
            chat_template=settings["template"],
            add_generation_prompt=asked["ask"],
            **settings["special"],
        )
        text = found[0][0]
        if len(text) > CHARACTERS:
            return {"error": f"it writes {len(text):,} characters for one chat"}
        return {"text": text}
    except RecursionError:
        return {"error": "it calls itself without an end"}
    except MemoryError:
        return {"error": f"it needs more than {MEMORY / 2**30:g} GiB"}
    except Exception as error:
        return {"error": _said(error), "line": _line(error)}
    finally:
        _alarm(0)


def _bound_memory() -> None:
    with suppress(ImportError, ValueError, OSError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _alarm(seconds: float) -> None:
    """Not caught: the system ends the program, in the middle of a multiplication too."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _said(error: Exception) -> str:
    from jinja2.exceptions import TemplateError

    return str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"


def _line(error: Exception) -> int | None:
    """Of the template, where the error happened."""
    if (line := getattr(error, "lineno", None)) is not None:
        return line
    places = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == "<template>"
    ]
    return places[-1] if places else None


if __name__ == "__main__":
    main()
