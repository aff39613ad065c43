"""The pages of results: their tables and numbers are those of the files in results/."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.modules import load_module

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))
NOT_NUMBERS = re.compile(
    r"`[^`]*`"  # code
    r"|\(https?://[^)]*\)"
    r"|\d+\.\d+\.\d+"  # versions
    r"|[\d.]+e-?\d+"  # rates and rounding
)
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?!\d)")
MOST_DECIMALS = 4


def prose(text: str) -> str:
    """The text without code and generated tables."""
    script = load_module("scripts/make_results.py")
    text = script.BLOCK.sub("", text)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return NOT_NUMBERS.sub("", text)


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def over_seeds(seeds: list[dict[str, Any]]) -> Iterator[float]:
    """Mean, median and deviation of every metric."""
    values: dict[str, list[float]] = {}
    for seed in seeds:
        for key, number in flat(seed.get("scores", {})):
            values.setdefault(key, []).append(number)
    for found in values.values():
        if len(found) > 1:
            yield from (statistics.fmean(found), statistics.median(found), statistics.stdev(found))


def flat(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from flat(inner, f"{key}/{name}")
    elif isinstance(value, int | float):
        yield key, value


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Every number of results/, as it may be printed."""
    found: list[float] = []
    for path in RESULTS.rglob("*.json*"):
        text = path.read_text("utf-8")
        parts = text.splitlines() if path.suffix == ".jsonl" else [text]
        documents = [json.loads(part) for part in parts]
        for document in documents:
            found += numbers(document)
        seeds = documents
        if path.suffix == ".json":
            seeds = documents[0].get("seeds", []) if isinstance(documents[0], dict) else []
        if all(isinstance(seed, dict) for seed in seeds):
            found += over_seeds(seeds)
    found += numbers(yaml.safe_load((RESULTS / "published.yaml").read_text("utf-8")))
    return {f"{abs(x):.{digits}f}" for x in found for digits in range(1, MOST_DECIMALS + 1)}


def test_the_tables_are_those_of_the_files():
    script = load_module("scripts/make_results.py")
    for path, text in script.pages():
        assert path.read_text("utf-8") == text, f"{path.name}: run python scripts/make_results.py"
    used = {name for path in PAGES for _, name, *_ in script.BLOCK.findall(path.read_text("utf-8"))}
    assert used == set(script.TABLES)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda path: path.name)
def test_every_number_of_the_prose_is_in_a_file(page, known):
    text = prose(page.read_text("utf-8"))
    assert [number for number in NUMBER.findall(text) if number not in known] == []


def test_a_wrong_number_would_be_found(known):
    assert [n for n in NUMBER.findall(prose("LoRA has 77.94, not 99.9137")) if n not in known] == [
        "99.9137"
    ]


@pytest.mark.parametrize("runs", ["--runs /home/me/runs", "--runs=/home/me/runs"])
def test_a_command_is_kept_without_places(runs):
    keep = load_module(ROOT / "scripts" / "keep.py")
    command = f"lorakit train /home/me/e2e.yaml model.name=/home/me/base {runs} train.epochs=1"
    assert keep.without_places(command) == "lorakit train e2e.yaml train.epochs=1"


def test_no_result_names_a_place_of_the_machine():
    for path in RESULTS.rglob("*.json"):
        text = path.read_text("utf-8")
        assert not re.search(r'["=\s]/(tmp|home|root|work|mnt)/', text), path
