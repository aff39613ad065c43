"""A folder of files is a registry: a file's name is its plug-in's name, and nothing is imported until it is asked for.

    methods = Registry("lorakit.methods", "Method")
    methods.names()          # ['bitfit', 'full', 'lora'], read from the folder
    methods.get("lora")      # imports lorakit/methods/reparam/lora.py, returns its PLUGIN

Other packages add theirs through entry points of the same group name (`[project.entry-points."lorakit.methods"]`).
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar

from lorakit.errors import RecipeError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """The plug-ins of one package, sub-folders ("drawers") included.

    A plug-in file defines the name `PLUGIN`; files that start with an underscore are not plug-ins.
    """

    def __init__(self, package: str, kind: str):
        self.package = package
        self.kind = kind

    @cached_property
    def _modules(self) -> dict[str, str]:
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise RecipeError(f"{self.package} is no package")
        root = Path(next(iter(spec.submodule_search_locations)))
        found: dict[str, str] = {}
        for file in sorted(root.rglob("*.py")):
            path = file.relative_to(root)
            if any(part.startswith("_") for part in path.parts):
                continue
            name = file.stem
            if name in found:
                raise RecipeError(f"two {self.kind}s are named {name!r}: {found[name]} and {path}")
            found[name] = ".".join([self.package, *path.with_suffix("").parts])
        return found

    @cached_property
    def _foreign(self) -> dict[str, object]:
        return {point.name: point for point in entry_points(group=self.package)}

    def names(self) -> list[str]:
        """Every name that `get` takes, own ones and other packages'."""
        return sorted({*self._modules, *self._foreign})

    def get(self, name: str) -> T:
        """The plug-in of that name; RecipeError (a ValueError) with the nearest names where there is none."""
        if name in self._modules:
            return import_module(self._modules[name]).PLUGIN
        if name in self._foreign:
            return self._foreign[name].load()  # type: ignore[attr-defined]
        names = self.names()
        raise RecipeError(
            f"no {self.kind} is named {name!r}{did_you_mean(name, names)} (there are: {', '.join(names)})"
        )
