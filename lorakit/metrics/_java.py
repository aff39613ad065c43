"""Java, and the two programs in the package pycocoevalcap: found without importing it, run, and ended.

METEOR 1.5 (meteor-1.5.jar), the tokeniser of CoreNLP 3.4.1 (stanford-corenlp-3.4.1.jar)
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Timer
from typing import NamedTuple

from lorakit.errors import MetricError

logger = logging.getLogger(__name__)

LIMIT = 900.0
"""Seconds that a program has for an answer. METEOR needs 7 to start, and minutes on a machine that is busy."""
INSTALL = 'install Java 8 or later and `pip install "lorakit[nlg]"`'
# METEOR reads numbers in the format of the machine's country, and dies of a decimal comma
OPTIONS = ("-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US", "-Xmx1G")


class Java(NamedTuple):
    """The start of a command line for each program."""

    meteor: list[str]
    tokenizer: list[str]


def find(otherwise: str) -> Java | None:
    """`look`, or None with one warning: what is missing, what happens `otherwise`, and what to install."""
    try:
        return look()
    except FileNotFoundError as missing:
        logger.warning("%s: %s; %s", missing, otherwise, INSTALL)
        return None


def look() -> Java:
    """How to start the programs. FileNotFoundError: what is missing."""
    program = _java()
    meteor, corenlp = _jar("meteor/meteor-1.5.jar"), _jar("tokenizer/stanford-corenlp-3.4.1.jar")
    tokenizer = ["-cp", str(corenlp), "edu.stanford.nlp.process.PTBTokenizer"]
    return Java([program, *OPTIONS, "-jar", str(meteor)], [program, *OPTIONS, *tokenizer])


def _java() -> str:
    program = shutil.which("java")
    if program is None:
        raise FileNotFoundError("no `java` on the PATH")
    # macOS has a `java` that only says that there is none
    try:
        run(f"`{program} -version`", [program, "-version"], [])
    except (MetricError, OSError) as failed:
        raise FileNotFoundError(f"no Java that runs ({failed})") from None
    return program


def _jar(path: str) -> Path:
    spec = find_spec("pycocoevalcap")
    if spec is None:
        raise FileNotFoundError("the package pycocoevalcap is not installed")
    places = [Path(place) / path for place in spec.submodule_search_locations or ()]
    for file in places:
        if file.is_file():
            return file
    raise FileNotFoundError(f"the package pycocoevalcap has no {path} (looked for {', '.join(map(str, places))})")


def run(name: str, command: list[str], lines: list[str]) -> list[str]:
    """What a program prints, line by line, for the lines that it reads. MetricError: it fails, or takes too long."""
    text = "".join(f"{line}\n" for line in lines).encode(errors="replace")
    try:
        done = subprocess.run(command, input=text, capture_output=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise _late(name) from None
    if done.returncode:
        raise _failed(name, done.returncode, done.stderr)
    return done.stdout.decode(errors="replace").removesuffix("\n").split("\n")


@contextmanager
def dialogue(name: str, command: list[str]) -> Iterator[Callable[..., list[str]]]:
    """A program that answers each line: `ask(line, n)` is its next n lines. MetricError: it ends, or takes too long."""
    with tempfile.TemporaryFile() as said:
        program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
        assert program.stdin
        assert program.stdout
        questions, answers = program.stdin, program.stdout

        def ask(line: str, n: int = 1) -> list[str]:
            timer = Timer(LIMIT, stop)
            timer.start()
            try:
                questions.write(f"{line}\n".encode(errors="replace"))
                questions.flush()
                found = [answers.readline() for _ in range(n)]
            except BrokenPipeError:
                found = [b""]
            finally:
                timer.cancel()
            if late.is_set():
                raise _late(name)
            if not all(found):
                code = program.wait()
                said.seek(0)
                raise _failed(name, code, said.read())
            return [answer.decode(errors="replace").strip() for answer in found]

        def stop() -> None:
            late.set()
            program.kill()

        late = Event()
        try:
            yield ask
        finally:
            program.kill()
            program.communicate()


def _late(name: str) -> MetricError:
    return MetricError(f"{name} has not answered in {LIMIT:g} seconds, and was ended")


def _failed(name: str, code: int, said: bytes) -> MetricError:
    words = said.decode(errors="replace").strip()[-500:]
    return MetricError(f"{name} ended with exit code {code}; it said: {words or 'nothing'}")
