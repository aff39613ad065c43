"""The pages say what the code says: options, fields, dependencies, errors, and recipes that
load."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import lorakit
from lorakit import errors
from lorakit.combining import rules
from lorakit.inits import inits
from lorakit.methods import methods
from lorakit.methods.reparam import Reparam
from lorakit.models import families
from lorakit.optimizers import optimizers
from lorakit.recipe.load import build, load_recipe
from lorakit.recipe.schema import Recipe
from lorakit.runs.result import Check, Counts, Result, SeedResult
from lorakit.trackers import trackers
from tests.modules import ROOT, load_module

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def _page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def _sections(text: str) -> dict[str, str]:
    """Heading of the second level -> its text."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _in_code(text: str) -> set[str]:
    """Words in backticks."""
    return {
        word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[\w.-]+", code)
    }


def test_the_gallery_is_up_to_date():
    page = load_module("scripts/make_gallery.py").page()
    assert _page("gallery.md") == page, "run python scripts/make_gallery.py"


def test_the_pages_for_people_from_other_tools_have_the_table_of_the_code():
    script = load_module("scripts/make_peer_pages.py")
    for page in script.PAGES:
        text = _page(f"guides/coming-from/{page}.md")
        assert text == script.filled(page, text), "run python scripts/make_peer_pages.py"


def test_the_page_of_the_trackers_has_each_with_its_extra():
    text = _page("guides/trackers.md")
    for name in trackers.names():
        assert f"| `{name}` | `pip install 'lorakit[{trackers.get(name).extra}]'`" in text


def test_the_drawing_of_the_rooms_is_up_to_date():
    script = load_module("scripts/make_architecture.py")
    rooms = [room for floor in script.layers() for room in floor]
    packages = {path.parent.name for path in (ROOT / "lorakit").glob("*/__init__.py")}
    files = {path.stem for path in (ROOT / "lorakit").glob("*.py")} - {"__init__", "__main__"}
    assert packages | files == set(rooms), "every package and file is on a floor"
    drawn = script.PICTURE.read_text(encoding="utf-8")
    assert drawn == script.picture(), "run python scripts/make_architecture.py"


def test_every_block_of_a_recipe_is_in_the_gallery():
    blocks = _sections(_page("gallery.md"))["Sections of a recipe"]
    described = set(re.findall(r"^### (.+)$", blocks, re.MULTILINE))
    own = {"task", "method"}  # each plug-in has an entry
    fields = {
        name: field.annotation for name, field in Recipe.model_fields.items() if name not in own
    }
    nested = {kind.__name__ for kind in fields.values() if hasattr(kind, "model_fields")}
    assert len(nested) >= 6
    assert nested <= described


def _anchors(text: str) -> set[str]:
    """Of the headings, as mkdocs makes them."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {
        re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower()) for text in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_link_to_a_heading_finds_it(page):
    plain = re.sub(r"`[^`\n]*`", "", page.read_text("utf-8"))
    for target, anchor in re.findall(r"\]\(([\w./-]*)#([^)]+)\)", plain):
        if not target.startswith("http"):
            other = page.parent / target if target else page
            assert anchor in _anchors(other.read_text("utf-8")), f"{target}#{anchor}"


@pytest.mark.parametrize("file", [".ci/run", "Makefile"])
def test_warnings_of_the_pages_are_errors(file):
    """With --quiet mkdocs hides its warnings from --strict too."""
    (line,) = (line for line in (ROOT / file).read_text().splitlines() if "mkdocs build" in line)
    assert "--strict" in line
    assert not re.search(r"\s(--quiet|-q)\b", line)


def _verbs() -> Iterator[tuple[str, set[str]]]:
    """Verb -> its long options, as the command line has them."""
    import typer

    from lorakit.cli import add_verbs, app

    add_verbs()

    def leaves(command, path: tuple[str, ...]) -> Iterator[tuple[str, set[str]]]:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from leaves(inner, (*path, name))
        else:
            yield (
                " ".join(path),
                {o for p in command.params for o in p.opts if o.startswith("--")} - {"--help"},
            )

    return leaves(typer.main.get_command(app), ())


VERBS = dict(_verbs())


def test_every_verb_has_its_section():
    assert len(VERBS) >= 11
    assert set(_sections(_page("guides/command-line.md"))) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_described_and_no_other(verb):
    text = _sections(_page("guides/command-line.md"))[verb]
    described = {word for word in _in_code(text) if word.startswith("--")}
    assert described == VERBS[verb]


def _blocks() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for i, block in enumerate(
            re.findall(
                r"^```yaml[^\n]*\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
            )
        ):
            if {"task", "model"} <= (keys := set(yaml.safe_load(block))) or {
                "task",
                "extends",
            } <= keys:
                yield f"{page.relative_to(DOCS)}-{i}", block


RECIPES = dict(_blocks())


def test_there_are_recipes_in_the_pages():
    assert len(RECIPES) >= 6


@pytest.mark.parametrize("where", RECIPES)
def test_a_recipe_in_a_page_is_a_recipe(where, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPES[where])
    assert build(tmp_path / "recipe.yaml").recipe.method.name in methods.names()


def test_the_recipe_guide_knows_every_block():
    described = _in_code(_page("guides/recipes.md").split("## The YAML")[0])
    assert set(Recipe.model_fields) <= described


@pytest.mark.parametrize(
    "model", [Result, Counts, SeedResult, Check], ids=lambda model: model.__name__
)
def test_every_field_of_a_result_is_described(model):
    assert set(model.model_fields) <= _in_code(
        _sections(_page("guides/run-folder.md"))["result.json"]
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    from lorakit.verbs.train import train_recipe

    small = [
        "train.max_steps=2",
        "data.limit={train: 32, validation: 16}",
        "train.global_batch_size=8",
    ]
    return train_recipe(
        load_recipe("quickstart", small), tmp_path_factory.mktemp("runs"), lambda event: None
    )[0]


def test_every_file_of_a_run_is_described(run):
    text = _page("guides/run-folder.md")
    top = {path.name for path in run.iterdir()}
    assert top == {"base.json", "data.json", "recipe.yaml", "result.json", "report.html", "seed0"}
    assert all(
        name.replace("seed0", "seedN") in text
        for name in top | {p.name for p in (run / "seed0").iterdir()}
    )
    assert all(
        path.name in _page("guides/adapters.md") for path in (run / "seed0" / "adapter").iterdir()
    )


def test_every_field_of_an_event_is_described(run):
    text = _sections(_page("guides/run-folder.md"))["metrics.jsonl"]
    events = [
        json.loads(line) for line in (run / "seed0" / "metrics.jsonl").read_text().splitlines()
    ]
    rows = {
        cells[1].strip(" `"): _in_code(cells[2])
        for cells in (line.split("|") for line in text.splitlines())
        if len(cells) == 4
    }
    assert {event["event"] for event in events} == {"start", "step", "eval", "rotation"}
    for event in events:
        assert set(event) - {"event"} == rows[event["event"]]


@pytest.mark.parametrize(
    ("file", "section"),
    [("predictions/validation.jsonl", "Predictions"), ("environment.json", "environment.json")],
)
def test_every_key_of_the_other_files_is_described(run, file, section):
    text = (run / "seed0" / file).read_text()
    first = json.loads(text if file.endswith(".json") else text.splitlines()[0])
    assert set(first) <= _in_code(_sections(_page("guides/run-folder.md"))[section])


def test_every_error_is_described():
    every = [
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.LorakitError)
    ]
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", _page("guides/errors.md"), re.MULTILINE))
    assert len(rows) >= 8
    assert rows == {
        cls.__name__: str(cls.exit_code) for cls in every if cls is not errors.LorakitError
    }


def test_every_dependency_is_justified_and_no_other():
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("\ndependencies = ") : text.index("[project.scripts]")]
    needed = {
        re.match(r"[\w-]+", entry)[0] for entry in re.findall(r'"([a-z][^"]*[<>=][^"]*)"', block)
    }
    rows = re.findall(
        r"^\| (?:`\w+` \| )?([\w-]+) \| \w.*\|$", _page("dependencies.md"), re.MULTILINE
    )
    assert sorted(set(rows) - {"package", "extra"}) == sorted(needed)
    assert len(needed) >= 20


def test_the_changelog_begins_with_this_version():
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(name for name in versions if name != "Unreleased") == lorakit.__version__


def test_every_rule_of_combining_is_described_with_its_fields():
    rows = _table_rows(_sections(_page("guides/combining.md"))["The rules"])
    assert set(rows) == set(rules.own_names())
    for name, (formula, fields, _paper) in rows.items():
        rule = rules.get(name)
        own = {field: info.default for field, info in rule.model_fields.items() if field != "name"}
        described = dict(re.findall(r"`(\w+)` ([\d.]+)", fields))
        assert {field: float(value) for field, value in described.items()} == own
        assert formula


def _table_rows(text: str) -> dict[str, list[str]]:
    """The first cell of each row, without backticks -> the others."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            found[cells[0].strip("`")] = cells[1:]
    return found


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("methods", [n for n in methods.own_names() if issubclass(methods.get(n), Reparam)]),
        ("inits", inits.names()),
        ("combining", rules.names()),
    ],
)
def test_each_plug_in_has_a_picture(kind, names):
    pictures = DOCS / "pictures" / "gallery" / kind
    assert [n for n in names if not (pictures / f"{n}.svg").is_file()] == []


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("methods", methods.own_names()),
        ("inits", inits.names()),
        ("combining", rules.names()),
        ("optimizers", optimizers.names()),
    ],
)
def test_each_plug_in_has_a_source_of_golden_values_and_a_cost(kind, names):
    script = load_module("scripts/make_gallery.py")
    assert set(names) <= set(script.SOURCES[kind])
    # its state moves between a GPU and the host, and no GPU was there
    assert {*names} - {*script.costs(kind)} <= {"paged_adamw"}


def test_the_readme_counts_what_is_there():
    text = " ".join((ROOT / "README.md").read_text().split())
    changing = [n for n in methods.own_names() if issubclass(methods.get(n), Reparam)]
    types = [model_type for n in families.names() for model_type in families.get(n).model_types]
    for count, what in (
        (len(methods.own_names()), "methods. "),
        (len(changing), "change weights as LoRA does"),
        (len(inits.own_names()), "ways to start A and B"),
        (len(rules.own_names()), "rules"),
        (len(types), "architectures"),
    ):
        assert f" {count} {what}" in text
