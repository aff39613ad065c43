"""A chat to a text by the tokenizer's template, in a process of its own that ends where the template does not."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from lorakit.batches import _renderer

PROGRAM = Path(_renderer.__file__)


class TemplateError(Exception):
    """What the template did instead of writing the chat, in words."""


def rendered(tokenizer: Any, messages: list[dict[str, str]], ask: bool) -> str:
    """The text of a chat; ask: with what the template puts before an answer. TemplateError: it fails, or is endless."""
    from transformers import PreTrainedTokenizerBase

    if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
        return _by_its_own(tokenizer, messages, ask)
    settings = {
        "template": tokenizer.get_chat_template(),
        "special": _texts(tokenizer.special_tokens_map),
    }
    return _renderer_of_this_process().render(settings, messages, ask)


def _by_its_own(tokenizer: Any, messages: list[dict[str, str]], ask: bool) -> str:
    """A tokenizer with a code of its own for chats has no template that others could run."""
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
    except Exception as error:
        raise TemplateError(f"{type(error).__name__}: {error}") from None


def _texts(special: Any) -> dict[str, Any]:
    return {
        name: [str(v) for v in value] if isinstance(value, list) else str(value)
        for name, value in special.items()
    }


class _Renderer:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self.seconds = float(os.environ.get("LORAKIT_TEMPLATE_SECONDS") or 10)
        self.process: Any = None
        self.settings: dict[str, Any] | None = None

    def render(self, settings: dict[str, Any], messages: list[dict[str, str]], ask: bool) -> str:
        if self.process is None:
            self._start()
        request: dict[str, Any] = {"messages": messages, "ask": ask}
        if settings != self.settings:
            request["settings"] = self.settings = settings
        answer = self._asked(json.dumps(request))
        if "error" in answer:
            line = f" (line {answer['line']})" if answer.get("line") else ""
            raise TemplateError(f"{answer['error']}{line}")
        return answer["text"]

    def _start(self) -> None:
        self.settings = None
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {
            **os.environ,
            "PYTHONPATH": paths,
            "USE_TORCH": "0",
            "PYTHONIOENCODING": "utf-8",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env=environment,
            text=True,
            encoding="utf-8",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _asked(self, line: str) -> dict[str, Any]:
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            found = self.process.stdout.readline()
        except BrokenPipeError:
            found = ""
        if found:
            return json.loads(found)
        code, self.process = self.process.wait(), None
        late = f"it has not come to an end within {self.seconds:g} seconds (LORAKIT_TEMPLATE_SECONDS allows more)"
        return {"error": late if code == -_PROF else f"the program that runs it ended with {code}"}

    def end(self) -> None:
        if self.process is not None and self.pid == os.getpid():
            self.process.kill()
            self.process.wait()
            self.process = None


_PROF = getattr(signal, "SIGPROF", 0)
_renderers: dict[int, _Renderer] = {}


def _renderer_of_this_process() -> _Renderer:
    """One for all chats, since its start takes a second; a forked process has its own."""
    pid = os.getpid()
    if pid not in _renderers:
        _renderers[pid] = _Renderer()
        atexit.register(_renderers[pid].end)
    return _renderers[pid]
