"""Names of recipes and studies: each becomes a folder, a job's name, and a word in a command."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from lorakit.errors import RecipeError

SIGNS = " ._-+=,@()[]#%&'!~^/"
"""Allowed next to letters, marks and digits of any script. A shipped recipe in a folder has `/`."""


def checked_name(name: str, path: Path) -> str:
    """The name itself.

    RecipeError: it is empty, or has a character that a shell, a scheduler or a terminal would act
    on.
    """
    if not name:
        raise RecipeError(f"{str(path)!r}: the name is empty; move the file into a folder")
    for char in name:
        if char not in SIGNS and unicodedata.category(char)[0] not in "LMN":
            raise RecipeError(
                f"{str(path)!r}: the name {name!r} has {char!r}; a name may have letters, digits, "
                f"spaces and any of {SIGNS.strip(' /')}: rename the file (for a recipe.yaml, its "
                "folder)"
            )
    if name.startswith(("-", " ")):
        raise RecipeError(
            f"{str(path)!r}: the name {name!r} begins with {name[0]!r}, as an option does; rename "
            "it"
        )
    return name
