"""YAML, `extends`, overrides -> a frozen `Recipe`, or every problem at once. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

import lorakit
from lorakit.errors import RecipeError, did_you_mean
from lorakit.methods import methods
from lorakit.models import Model
from lorakit.notes import Note
from lorakit.recipe.naming import checked_name
from lorakit.recipe.problems import Sections, describe, mark_of
from lorakit.recipe.schema import Decode, Evaluate, Expect, Recipe, Train
from lorakit.recipe.source import Mark, Marks, parse, read, refuse_halves, scalar
from lorakit.registry import Registry
from lorakit.tasks import Data, tasks

SOURCES = ("paper", "script", "ours")
STUDIES, TABLES = "studies", "tables"
"""Folders under recipes/ that hold no recipes: `lorakit.studies.plan` and `lorakit.studies.paper_table` read them."""
COMMAND_LINE = Mark("command line")


@dataclass(frozen=True)
class Origin:
    """Where a value comes from. source: paper, script (the reference code's), ours, or command line."""

    source: str
    note: str
    mark: Mark


@dataclass(frozen=True)
class Loaded:
    """A recipe, the name it goes by, the origin of every value that was given, and what a reader should know."""

    recipe: Recipe
    name: str
    path: Path
    origins: dict[str, Origin]
    notes: tuple[Note, ...] = ()


def load_recipe(
    name_or_path: str, overrides: Sequence[str] = (), given: Sequence[Mark] = ()
) -> Loaded:
    """The recipe of that file or shipped name, with `key=value` and `~key` applied.

    given: where each override stands, if it is not on the command line.
    RecipeError lists every problem: file, line, value, nearest valid name.
    """
    return build(find(name_or_path), overrides, given)


def build(path: Path, overrides: Sequence[str] = (), given: Sequence[Mark] = ()) -> Loaded:
    """As `load_recipe`, for a file."""
    return assemble(path, *read_extended(path), overrides, given)


def assemble(
    path: Path,
    data: dict[str, Any],
    marks: Marks,
    overrides: Sequence[str] = (),
    given: Sequence[Mark] = (),
) -> Loaded:
    """As `build`, of a file that was read; `data` and `marks` are changed."""
    name = checked_name(recipe_name(path), path)
    notes = apply_overrides(data, marks, overrides, given)
    recipe = validate(data, marks)
    return Loaded(recipe, name, path, origins_of(data, marks), tuple(notes))


def compose(data: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from plain data, for what has no file."""
    marks: Marks = {}
    apply_overrides(data, marks, overrides)
    return validate(data, marks)


def shipped(kind: str) -> Path:
    """The folder `recipes` or `configs`: inside an installed package, or at the top of a checkout."""
    package = Path(lorakit.__file__).parent
    installed = package / "shipped" / kind
    return installed if installed.is_dir() else package.parent / kind


def names() -> list[str]:
    """Every shipped recipe, by the name that the command line takes."""
    root = shipped("recipes")
    files = (file.relative_to(root) for file in root.rglob("*.yaml"))
    return sorted(
        str(file.with_suffix("")) for file in files if file.parts[0] not in (STUDIES, TABLES)
    )


def find(name_or_path: str) -> Path:
    """A file of that path, else the shipped recipe of that name."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    name = name_or_path.removeprefix("recipes/").removesuffix(".yaml")
    shipped_file = shipped("recipes") / f"{name}.yaml"
    if name in names():
        return shipped_file
    raise RecipeError(
        f"no recipe file {name_or_path!r}, and no shipped recipe {name!r}{did_you_mean(name, names())} "
        "(`lorakit recipes list` shows all)"
    )


def recipe_name(path: Path) -> str:
    """`roberta_large/glue_mrpc` for a shipped recipe, the file's stem for another."""
    try:
        return str(path.resolve().relative_to(shipped("recipes").resolve()).with_suffix(""))
    except ValueError:
        return path.parent.name if path.name == "recipe.yaml" else path.stem


def read_extended(path: Path) -> tuple[dict[str, Any], Marks]:
    """A recipe file over the fragments that its `extends` names; later ones win, the recipe wins over all."""
    own, own_marks = read(path)
    fragments = own.pop("extends", [])
    mark = own_marks.pop(("extends",), Mark(str(path)))
    if isinstance(fragments, str):
        fragments = [fragments]
    if not isinstance(fragments, list) or not all(isinstance(f, str) for f in fragments):
        raise RecipeError(
            f"{mark}: extends: a list of names under configs/ is expected, this is {fragments!r}"
        )
    data: dict[str, Any] = {}
    marks: Marks = {}
    for fragment in fragments:
        part, part_marks = read(_fragment(fragment, path, mark))
        if "extends" in part:
            raise RecipeError(
                f"{part_marks[('extends',)]}: a fragment in configs/ cannot extend another (one level only)"
            )
        _merge(data, part, marks, part_marks)
    _merge(data, own, marks, own_marks)
    return data, marks


def _fragment(name: str, recipe: Path, mark: Mark) -> Path:
    root = shipped("configs")
    for candidate in (root / f"{name}.yaml", recipe.parent / name, recipe.parent / f"{name}.yaml"):
        with suppress(OSError):  # a name that no file system takes
            if candidate.is_file():
                return candidate
    known = sorted(str(f.relative_to(root).with_suffix("")) for f in root.rglob("*.yaml"))
    raise RecipeError(
        f"{mark}: extends: no fragment {name!r}{did_you_mean(name, known)} (there are: {', '.join(known)})"
    )


def _merge(
    base: dict[str, Any],
    over: dict[str, Any],
    marks: Marks,
    over_marks: Marks,
    path: tuple[str, ...] = (),
) -> None:
    """Mappings are merged key by key; anything else is replaced, and so is a method, task or model of another name."""
    below: dict[tuple[str, ...], Marks] = {}
    for m, mark in over_marks.items():
        if len(m) > len(path):
            below.setdefault(m[: len(path) + 1], {})[m] = mark
    for key, value in over.items():
        here = (*path, key)
        old = base.get(key)
        renamed = (
            isinstance(value, dict)
            and isinstance(old, dict)
            and value.get("name", old.get("name")) != old.get("name")
        )
        if isinstance(value, dict) and isinstance(old, dict) and not renamed:
            _merge(old, value, marks, over_marks, here)
        else:
            for stale in [m for m in marks if m[: len(here)] == here] if key in base else ():
                del marks[stale]
            base[key] = deepcopy(value)
            marks.update(below.get(here, {}))
        if here in over_marks:
            marks[here] = over_marks[here]


def apply_overrides(
    data: dict[str, Any], marks: Marks, overrides: Sequence[str], given: Sequence[Mark] = ()
) -> list[Note]:
    """`a.b=value` sets, `~a.b` removes; in place. Returns notes on what follows from them."""
    problems, touched = [], set()
    for text, mark in zip(overrides, given or [COMMAND_LINE] * len(overrides), strict=True):
        key, equals, value_text = text.partition("=")
        path = tuple(key.lstrip("~").split("."))
        try:
            refuse_halves(text, str(mark))
            if text.startswith("~") and not equals:
                _remove(data, marks, path, mark)
            elif equals and all(path):
                _set(data, marks, path, _given(value_text, f"{mark}, {key}"), mark)
            else:
                raise RecipeError(f"{mark}: {text!r} is neither key=value nor ~key")
        except RecipeError as error:
            problems.append(str(error))
        touched.add(path)
    if problems:
        raise RecipeError(listing("the overrides", problems))
    return _consequences(data, touched)


def _given(text: str, where: str) -> Any:
    """A list, a mapping or a quoted text is YAML; all else is as it stands: a path may hold `: ` and ` #`."""
    text = text.strip()
    return parse(text, where)[0] if text[:1] in tuple("[{'\"") else scalar(text)


HARMLESS = (
    "data.path",
    "data.revision",
    "seeds",
    "train.micro_batch_size",
    "train.checkpoint",
    "train.skip_bad_steps",
    "evaluate.batch_size",
    "start_from",
    "about",
    "model.id",
)
"""What may be set without leaving the setting that the published scores are of."""


def _consequences(data: dict[str, Any], touched: set[tuple[str, ...]]) -> list[Note]:
    """Another method or model has other counts; published scores then stand beside another setting, and it is said."""
    expect = data.get("expect")
    keys = sorted({".".join(path).lstrip("~") for path in touched})
    changed = [key for key in keys if not key.startswith(("expect", *HARMLESS))]
    if not changed or not isinstance(expect, dict):
        return []
    if any(key.split(".")[0] in ("method", "model", "task") for key in changed):
        for key in ("sites", "trainable"):
            if ("expect", key) not in touched:
                expect.pop(key, None)
    if any(key.split(".")[0] == "task" for key in changed):
        expect.pop("scores", None)
    if not expect.get("scores"):
        return []
    text = f"the published scores are of another setting; changed here: {', '.join(changed)}"
    return [Note(kind="other setting", text=text)]


def _set(data: dict[str, Any], marks: Marks, path: tuple[str, ...], value: Any, mark: Mark) -> None:
    at: Any = data
    for i, key in enumerate(path[:-1]):
        if isinstance(at.get(key), str) and path[i] in ("method", "task", "model"):
            at[key] = {"name": at[key]}
        at = at.setdefault(key, {})
        if not isinstance(at, dict):
            raise RecipeError(
                f"{mark}: {'.'.join(path)}: {'.'.join(path[: i + 1])} is no mapping, it is {at!r}"
            )
    for stale in [m for m in marks if m[: len(path)] == path]:
        del marks[stale]
    at[path[-1]] = value
    marks[path] = mark


def _remove(data: dict[str, Any], marks: Marks, path: tuple[str, ...], mark: Mark) -> None:
    at: Any = data
    for key in path[:-1]:
        at = at.get(key) if isinstance(at, dict) else None
    if not isinstance(at, dict) or path[-1] not in at:
        known = sorted({".".join(m) for m in marks})
        raise RecipeError(
            f"{mark}: ~{'.'.join(path)}: the recipe has no such key{did_you_mean('.'.join(path), known)}"
        )
    del at[path[-1]]
    for stale in [m for m in marks if m[: len(path)] == path]:
        del marks[stale]


def validate(data: dict[str, Any], marks: Marks) -> Recipe:
    """Plain data to a `Recipe`; RecipeError with every problem found."""
    problems: list[str] = []
    sections: dict[str, type[BaseModel]] = {
        "": Recipe,
        "model": Model,
        "data": Data,
        "train": Train,
        "evaluate": Evaluate,
        "decode": Decode,
        "expect": Expect,
    }
    built = {
        key: (_named(value) if key in ("method", "task", "model") else value)
        for key, value in data.items()
    }
    for key, registry in (("method", methods), ("task", tasks)):
        if isinstance(built.get(key), dict):
            built[key] = _plugin(key, registry, built[key], marks, sections, problems)
    try:
        recipe = Recipe.model_validate(built)
    except ValidationError as error:
        broken = {key for key in ("method", "task") if built.get(key) is _BROKEN}
        lines = describe(error, (), marks, sections)
        problems += [line for line in lines if not any(f": {key}: " in line for key in broken)]
        raise RecipeError(listing(_file_of(marks), problems)) from None
    if problems:
        raise RecipeError(listing(_file_of(marks), problems))
    return recipe


_BROKEN = object()


def _plugin(
    key: str,
    registry: Registry[Any],
    value: dict[str, Any],
    marks: Marks,
    sections: dict[str, type[BaseModel]],
    problems: list[str],
) -> Any:
    name = value.get("name")
    try:
        if not isinstance(name, str):
            raise RecipeError(f"give its name, one of {', '.join(registry.names())}")
        plugin = registry.get(name.split("/")[0])
    except RecipeError as error:
        problems.append(f"{mark_of((key, 'name'), marks)}: {key}: {error}")
        return _BROKEN
    sections[key] = plugin
    try:
        return plugin.model_validate(value)
    except ValidationError as error:
        problems += describe(error, (key,), marks, sections)
        return _BROKEN


def _named(value: Any) -> Any:
    """`method: full` says `method: {name: full}`."""
    return {"name": value} if isinstance(value, str) else value


def _file_of(marks: Marks) -> str:
    files = [mark.file for mark in marks.values() if mark.line]
    return files[-1] if files else "the recipe"


def listing(what: str, problems: Sequence[str]) -> str:
    """One problem as it is, several below a line that counts them."""
    if len(problems) == 1:
        return problems[0]
    return f"{what}: {len(problems)} problems\n" + "\n".join(f"  {problem}" for problem in problems)


def origins_of(data: dict[str, Any], marks: Marks) -> dict[str, Origin]:
    """Dotted key -> origin, for every value that was given; a line without a note inherits its block's."""
    return {".".join(path): _origin(path, marks) for path in _leaves(data)}


def _origin(path: tuple[str, ...], marks: Marks) -> Origin:
    own = mark_of(path, marks)
    for end in range(len(path), 0, -1):
        mark = marks.get(path[:end])
        if mark is None:
            continue
        if mark.line == 0:
            return Origin("command line", "", own)
        source, _, note = mark.comment.partition(" ")
        if source.rstrip(":;,") in SOURCES:
            return Origin(source.rstrip(":;,"), note.strip(), own)
    return Origin("ours", "", own)


def _leaves(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path


__all__ = ["Loaded", "Origin", "Sections", "find", "load_recipe", "names", "recipe_name", "shipped"]
