"""What lorakit imports is declared, and what decides a printed score is pinned."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
EXTRAS = TEXT.index("[project.optional-dependencies]")
ENTRY = re.compile(r'"([A-Za-z][\w.-]*)(?:\[[^]]*\])?((?:[<>=!~]=?)[^"]*)"')
SCORERS = ("rouge-score", "pycocoevalcap", "bert-score")


def _named(text: str) -> dict[str, list[str]]:
    """Distribution -> what is asked of its version, each time."""
    found: dict[str, list[str]] = {}
    for name, version in ENTRY.findall(text):
        found.setdefault(_plain(name), []).append(version)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


CORE = _named(TEXT[TEXT.index("\ndependencies = ") : EXTRAS])
EXTRA = _named(TEXT[EXTRAS : TEXT.index("[project.scripts]")])


def _imports() -> Iterator[tuple[str, str]]:
    """(top module, file) of every import of another package."""
    for file in sorted((ROOT / "lorakit").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if top != "lorakit" and top not in sys.stdlib_module_names:
                    yield top, str(file.relative_to(ROOT))


IMPORTED = dict(_imports())


def test_there_are_imports():
    assert {"torch", "numpy", "pyarrow", "huggingface_hub", "markupsafe"} <= set(IMPORTED)


@pytest.mark.parametrize("module", sorted(IMPORTED))
def test_what_is_imported_is_declared(module):
    known = packages_distributions().get(
        module, [module]
    )  # an extra that is not installed is named as its module
    assert {_plain(name) for name in known} & {*CORE, *EXTRA}, (
        f"{IMPORTED[module]} imports {module}"
    )


@pytest.mark.parametrize("name", SCORERS)
def test_what_decides_a_score_is_pinned(name):
    asked = CORE.get(name, []) + EXTRA.get(name, [])
    assert asked
    assert all(version.startswith("==") for version in asked)
    assert len(set(asked)) == 1


@pytest.mark.parametrize("name", sorted(CORE))
def test_what_is_needed_has_a_lowest_version(name):
    assert all(version.startswith((">=", "==")) for version in CORE[name])
