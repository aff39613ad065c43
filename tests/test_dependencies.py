"""What lorakit imports is declared, what decides a printed score is pinned, and the lock fits
pyproject.toml."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement

from tests.modules import ROOT, load_module

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


def test_what_is_imported_is_declared():
    imported, installed = dict(_imports()), packages_distributions()
    assert {"torch", "numpy", "pyarrow", "huggingface_hub", "jinja2"} <= set(imported)
    # an extra that is not installed is named as its module
    undeclared = {
        module: file
        for module, file in imported.items()
        if not {_plain(name) for name in installed.get(module, [module])} & {*CORE, *EXTRA}
    }
    assert not undeclared


@pytest.mark.parametrize("name", SCORERS)
def test_what_decides_a_score_is_pinned(name):
    asked = CORE.get(name, []) + EXTRA.get(name, [])
    assert asked
    assert all(version.startswith("==") for version in asked)
    assert len(set(asked)) == 1


@pytest.mark.parametrize("name", sorted(CORE))
def test_what_is_needed_has_a_lowest_version(name):
    assert all(version.startswith((">=", "==")) for version in CORE[name])


make_lock = load_module("scripts/make_lock.py")
LOCKED = make_lock.entries(make_lock.LOCK.read_text(encoding="utf-8"))
PINNED = make_lock.entries(make_lock.CONSTRAINTS.read_text(encoding="utf-8"))
MACHINES = [
    {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": system,
        "platform_system": name,
    }
    for python in ("3.10", "3.11", "3.12", "3.13")
    for system, name in (("linux", "Linux"), ("darwin", "Darwin"))
]


def _asked() -> Iterator[Requirement]:
    """Of pyproject.toml: the core, the extras that CI installs, and what builds the package."""
    core = TEXT[TEXT.index("\ndependencies = ") : EXTRAS]
    extras = TEXT[EXTRAS : TEXT.index("[project.scripts]")]
    lists = [re.search(rf"^{name} = \[.*?\]$", extras, re.M | re.S) for name in make_lock.EXTRAS]
    parts = [core, *(found[0] for found in lists if found)]
    assert len(parts) == 1 + len(make_lock.EXTRAS)
    for part in parts:
        yield from map(Requirement, re.findall(r'"([^"]+)"', part))
    yield from map(Requirement, make_lock.build_requirements())


def _on(machine: dict[str, str], entries: list[str]) -> dict[str, list[str]]:
    """Name -> the versions that are installed on it."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        pin = Requirement(make_lock.without_hashes(entry))
        if pin.marker is None or pin.marker.evaluate(machine):
            found.setdefault(_plain(pin.name), []).append(str(pin.specifier).removeprefix("=="))
    return found


def test_the_lock_and_the_constraints_are_one_list():
    assert make_lock.CONSTRAINTS.read_text(encoding="utf-8") == make_lock.constraints_text(PINNED)
    assert make_lock.LOCK.read_text(encoding="utf-8") == make_lock.lock_text(LOCKED)
    pins = [make_lock.without_hashes(entry) for entry in LOCKED]
    assert pins == [
        entry for entry in PINNED if make_lock.name_of(entry) not in make_lock.NOT_HASHED
    ]
    assert [make_lock.name_of(entry) for entry in PINNED if entry not in pins] == list(
        make_lock.NOT_HASHED
    )


def test_every_file_in_the_lock_has_a_hash():
    assert len(LOCKED) > 100
    for entry in LOCKED:
        first, *hashes = [line.strip(" \\") for line in entry.splitlines()]
        assert re.fullmatch(r"[\w.-]+==[\w.+!]+( ; .+)?", first), first
        assert hashes, first
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), first
        assert not make_lock.name_of(entry).startswith(make_lock.OF_CUDA)


@pytest.mark.parametrize(
    "machine", MACHINES, ids=lambda m: f"{m['python_version']}-{m['sys_platform']}"
)
def test_each_requirement_is_pinned_once_at_a_version_that_is_allowed(machine):
    pinned = _on(machine, PINNED)
    assert all(len(versions) == 1 for versions in pinned.values())
    asked = list(_asked())
    assert len(asked) > 35
    for requirement in asked:
        assert _plain(requirement.name) in pinned, requirement
        assert requirement.specifier.contains(pinned[_plain(requirement.name)][0]), requirement
