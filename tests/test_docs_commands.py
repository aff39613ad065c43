"""The commands of the pages work, in the order in which a reader meets them."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

from lorakit.errors import RecipeError
from lorakit.recipe.load import load_recipe
from lorakit.runs.folder import folder_of
from tests.doc_commands import PAGES, REASONS, RUN_FOLDER, blocks_of, run_block
from tests.modules import ROOT

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
OF_REAL_RUNS = ("analysis.md", "deployment.md", "significance.md")
"""Pages about runs of real bases, which take hours or data that does not ship."""
SHIPPED = ("recipes", "configs", "examples", "scripts", "constraints.txt", "README.md")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with what a checkout has, in which README's commands were run."""
    folder = tmp_path_factory.mktemp("docs")
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder)
    return folder


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Without the network, as the pages promise for what ships with lorakit."""
    return dict(os.environ) | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_block_that_is_not_run_says_why(page):
    reasons = [block.skipped for block in blocks_of(page) if block.skipped]
    assert [reason for reason in reasons if not reason.startswith(REASONS)] == []


def test_every_guide_is_in_the_navigation():
    assert set(PAGES) >= set((ROOT / "docs" / "guides").glob("*.md"))


def test_the_pages_have_commands():
    commands = [
        command for page in PAGES for block in blocks_of(page) for command in block.commands
    ]
    assert len(commands) > 80


def test_the_run_folders_that_the_pages_name_are_those_of_their_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = set()
    for block in (block for page in PAGES for block in blocks_of(page)):
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        trained |= {name for c in block.commands for name in _folders_of(c.text)}
    named = {name for page in PAGES if page.name not in OF_REAL_RUNS for name in _runs_in(page)}
    assert len(named) >= 6
    assert named <= trained


def _runs_in(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    return {Path(name).name for name in RUN_FOLDER.findall(text)}


def _folders_of(command: str) -> set[str]:
    """The name of the run folder of a `lorakit train` command."""
    words = shlex.split(command, comments=True)
    if words[:2] != ["lorakit", "train"]:
        return set()
    overrides = [word for word in words[3:] if "=" in word or word.startswith("~")]
    try:
        return {folder_of(load_recipe(words[2], overrides), Path()).name}
    except RecipeError:  # a command that shows an error
        return set()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_commands_of_a_page_work(page, place, environment):
    _clean(place, page)
    if page.parent.name == "guides":
        assert _begin(place, environment) == []
    problems = _run_page(page, place, environment)
    assert problems == [], "\n\n".join(problems)
    if page.name not in OF_REAL_RUNS:
        assert {name for name in _named(page) if not (place / name).is_dir()} == set()


def _begin(place: Path, environment: dict[str, str]) -> list[str]:
    """What a reader of the guides has: the run of README, and the tutorial's data and recipe."""
    readme, tutorial = PAGES[:2]
    problems = [] if (place / "runs").is_dir() else _run_page(readme, place, environment)
    for block in blocks_of(tutorial):
        if block.file or "python make_csv.py" in block.text:
            problems += run_block(block, place, environment)
    return problems


def _run_page(page: Path, place: Path, environment: dict[str, str]) -> list[str]:
    problems = []
    for block in blocks_of(page):
        if not block.skipped:
            problems += run_block(block, place, environment)
    return problems


def _clean(place: Path, page: Path) -> None:
    """A guide begins where its reader is after README; README and the tutorial begin with nothing.

    The runs that are there stay, because training all of them again takes long.
    """
    guide = page.parent.name == "guides"
    for path in place.iterdir():
        if path.name in SHIPPED or (guide and path.name == "runs"):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _named(page: Path) -> set[str]:
    """The run folders that a page names outside of what is not run."""
    text = page.read_text(encoding="utf-8")
    for block in blocks_of(page):
        if block.skipped:
            text = text.replace(block.text, "")
    return set(RUN_FOLDER.findall(text))
