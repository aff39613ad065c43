"""`extends`: the values of a recipe file, merged over the fragments that it names."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from lorakit.errors import RecipeError, did_you_mean
from lorakit.recipe.shipped import shipped
from lorakit.recipe.source import KeyPath, Mark, Marks, forget, read_yaml


def read_extended(path: Path) -> tuple[dict[str, Any], Marks]:
    """The values of a recipe file and their marks.

    Later fragments win over earlier ones, and the recipe wins over all. RecipeError: a fragment
    does not exist, or extends another one.
    """
    own, own_marks = read_yaml(path)
    names = own.pop("extends", [])
    mark = own_marks.pop(("extends",), Mark(str(path)))
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RecipeError(
            f"{mark}: extends: {names!r} should be a list of names of files in configs/"
        )
    data: dict[str, Any] = {}
    marks: Marks = {}
    for name in names:
        fragment, fragment_marks = read_yaml(_find_fragment(name, path, mark))
        if "extends" in fragment:
            raise RecipeError(
                f"{fragment_marks[('extends',)]}: a fragment in configs/ cannot extend another "
                "(one level only)"
            )
        _merge(data, fragment, marks)
        marks |= fragment_marks
    _merge(data, own, marks)
    return data, marks | own_marks


def _find_fragment(name: str, recipe: Path, mark: Mark) -> Path:
    root = shipped("configs")
    for candidate in (root / f"{name}.yaml", recipe.parent / name, recipe.parent / f"{name}.yaml"):
        with suppress(OSError):  # a name that the file system refuses, such as a very long one
            if candidate.is_file():
                return candidate
    known = sorted(str(f.relative_to(root).with_suffix("")) for f in root.rglob("*.yaml"))
    raise RecipeError(
        f"{mark}: extends: no fragment {name!r}{did_you_mean(name, known)} "
        f"(there are: {', '.join(known)})"
    )


def _merge(base: dict[str, Any], over: dict[str, Any], marks: Marks, path: KeyPath = ()) -> None:
    """Merge `over` into `base`, mapping by mapping; in place, without the marks of what is gone.

    Any other value is replaced. A method, a task or a model of another name is replaced too,
    because the fields of the old one mean nothing to it.
    """
    for key, value in over.items():
        here = (*path, key)
        old = base.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and not _is_renamed(value, old):
            _merge(old, value, marks, here)
        else:
            if key in base:
                forget(marks, here)
            base[key] = value


def _is_renamed(value: dict[str, Any], old: dict[str, Any]) -> bool:
    return "name" in value and value["name"] != old.get("name")
