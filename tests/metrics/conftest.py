"""A machine without Java, and one with a small stand-in: the programs' lines, not their linguistics."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

import lorakit.metrics.meteor
from lorakit.metrics._java import Java, dialogue, look

FAKE = f"""#!{sys.executable}
import sys
arguments, lines = sys.argv[1:], iter(sys.stdin.readline, "")
if "-stdio" in arguments:
    # 2 * common words / all words
    def value(common, words):
        return 2 * common / words if words else 0.0
    for line in lines:
        command, *parts = [part.split() for part in line.split("|||")]
        if command == ["SCORE"]:
            *references, output = parts
            found = [(len(set(output) & set(text)), len(output) + len(text)) for text in references]
            print(*max(found, key=lambda pair: value(*pair)), flush=True)
        else:
            numbers = [[float(n) for n in part] for part in parts]
            for row in [*numbers, [sum(column) for column in zip(*numbers)]]:
                print(value(*row), flush=True)
elif "-preserveLines" in arguments:
    for line in lines:
        print(*line.lower().split())
"""


@pytest.fixture
def no_java(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def fake_java(tmp_path, monkeypatch) -> Path:
    """The script that is `java` on the PATH, and runs as such; pycocoevalcap is there as well."""
    folder = tmp_path / "fake"
    for jar in ("meteor/meteor-1.5.jar", "tokenizer/stanford-corenlp-3.4.1.jar"):
        (folder / "pycocoevalcap" / jar).parent.mkdir(parents=True)
        (folder / "pycocoevalcap" / jar).touch()
    java = folder / "java"
    java.write_text(FAKE)
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    return java


@pytest.fixture(scope="session")
def real_java() -> Java:
    try:
        return look()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def _real_meteor(real_java) -> Iterator[Callable[..., list[str]]]:
    with dialogue("METEOR", [*real_java.meteor, *lorakit.metrics.meteor.OPTIONS]) as ask:
        yield ask


@pytest.fixture
def real_meteor(_real_meteor, monkeypatch) -> None:
    """METEOR starts once for all tests: it needs 7 seconds, and a minute on a busy machine."""
    monkeypatch.setattr(lorakit.metrics.meteor, "dialogue", lambda name, command: nullcontext(_real_meteor))


@pytest.fixture(scope="session")
def data() -> Path:
    if "LORAKIT_DATA" not in os.environ:
        pytest.skip("LORAKIT_DATA (a folder with e2e_nlg/ and dart/) is not set")
    return Path(os.environ["LORAKIT_DATA"])


@pytest.fixture(scope="session")
def e2e(data) -> Callable[[str], tuple[list[str], list[list[str]]]]:
    """`e2e(system)` is its outputs on the 630 inputs of the test set, and their references."""
    references: dict[str, list[str]] = {}
    with (data / "e2e_nlg/testset_w_refs.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            references.setdefault(row["mr"], []).append(row["ref"])

    def outputs(system: str) -> tuple[list[str], list[list[str]]]:
        with (data / f"e2e_nlg/system_outputs/{system}.tsv").open(encoding="utf-8-sig", newline="") as file:
            found = {row["MR"]: row["output"] for row in csv.DictReader(file, delimiter="\t")}
        assert len(found) == len(references) == 630
        return [found[mr] for mr in references], list(references.values())

    return outputs
