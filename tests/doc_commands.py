"""Commands of the documentation: read from the pages' blocks, and run in their order.

A block of ```bash holds commands, and a block of ```console commands after `$ ` with what they
print. A block with `title="FILE"` is a file of the reader's. What cannot be run says so in a
comment before its block:

    <!-- test: skip, REASON -->     it needs the hub, a GPU or a cluster, or shows a form
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.modules import ROOT

_NAV = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
NAVIGATION = re.findall(r": ((?:tutorial|guides/[\w-]+)\.md)$", _NAV, re.MULTILINE)
PAGES = [ROOT / "README.md", *(ROOT / "docs" / page for page in NAVIGATION)]
"""In the order of the site."""
REASONS = (
    "needs the hub",
    "needs a GPU",
    "needs a cluster",
    "needs several processes",
    "an example of a command",
    "it runs these tests",
)
BLOCK = re.compile(r"^( *)```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
MARKER = re.compile(r"<!-- test: skip, (.*?) -->\n(?:<!-- .* -->\n)*\Z")
RUN_FOLDER = re.compile(r"runs\w*/[\w.-]+-(?:[0-9a-f]{16}|[0-9a-f]{6})\b")
FOUND_AGAIN = "holds this run already"
INSTALLING = re.compile(r"^pip install [^&]* && ")
INSTALLS = ("pip install", "apt-get", "git clone")


@dataclass(frozen=True)
class DocCommand:
    """A command, and the lines that the page says it prints."""

    text: str
    printed: tuple[str, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether the page shows that it ends with an error."""
        return any(line.startswith("error: ") for line in self.printed)


@dataclass(frozen=True)
class DocBlock:
    """A block of a page that is run, or that is a file."""

    page: Path
    line: int
    kind: str
    """`bash`, `console`, or the language of a file."""
    file: str
    """Name of the reader's file; empty for commands."""
    text: str
    skipped: str
    """Why it is not run; empty: it is."""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[DocCommand]:
        """Without those that install something."""
        if self.file:
            return []
        text = self.text.replace("\\\n", " ")
        if self.kind == "console":
            parts = [part.splitlines() for part in f"\n{text}".split("\n$ ")[1:]]
            found = [DocCommand(lines[0], tuple(lines[1:])) for lines in parts]
        else:
            lines = [line for line in text.splitlines() if line and not line.startswith("#")]
            found = [DocCommand(line) for line in lines]
        # CI runs the installations, each in a new environment
        found = [replace(one, text=INSTALLING.sub("", one.text)) for one in found]
        return [command for command in found if not command.text.startswith(INSTALLS)]


def blocks_of(page: Path) -> Iterator[DocBlock]:
    """The blocks of commands and of files, in the order of the page."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        _, kind, file, body = match.groups()
        if kind not in ("bash", "console") and not file:
            continue
        before = text[: match.start()]
        marker = MARKER.search(before)
        yield DocBlock(
            page=page,
            line=before.count("\n") + 1,
            kind=kind,
            file=file or "",
            text=body,
            skipped=marker[1] if marker else "",
        )


def run_block(block: DocBlock, place: Path, environment: Mapping[str, str]) -> list[str]:
    """Write the block's file, or run its commands in `place`; returns what went wrong."""
    if block.file:
        (place / block.file).write_text(block.text, encoding="utf-8")
    return [
        f"{block.where}: {command.text}: {problem}"
        for command in block.commands
        for problem in _run(command, place, environment)
    ]


def _run(command: DocCommand, place: Path, environment: Mapping[str, str]) -> Iterator[str]:
    done = subprocess.run(
        ["bash", "-c", command.text],
        cwd=place,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if (done.returncode != 0) != command.fails:
        yield f"exit code {done.returncode}: {done.stdout[-600:]}"
    # a page that trains shows what is printed the first time
    if FOUND_AGAIN not in done.stdout:
        there = "\n".join(_without_numbers(line) for line in done.stdout.splitlines())
        for line in command.printed:
            parts = [_without_numbers(part) for part in line.split("...")]
            if not all(part in there for part in parts):
                yield f"the page shows a line that is not printed: {line}"


def _without_numbers(line: str) -> str:
    """Numbers and the widths of columns differ between machines."""
    return re.sub(r"[-+]?\d[\d.,:]*(e[-+]?\d+)?", "#", re.sub(r"\s+|─+", " ", line)).strip()
