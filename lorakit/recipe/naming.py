"""What a recipe or a study may be called: its name becomes a folder, a job's name, and a word in printed commands."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from lorakit.errors import RecipeError

SIGNS = " ._-+=,@()[]#%&'!~^/"
"""Besides letters, marks and digits of any script. The slash is that of shipped recipes in folders."""


def checked_name(name: str, path: Path) -> str:
    """The name as it is. RecipeError: it holds a character that a shell, a scheduler or a terminal would act on."""
    wrong = next((char for char in name if not _taken(char)), None)
    if wrong is not None:
        signs = SIGNS.strip(" /")
        raise RecipeError(
            f"{str(path)!r}: the name {name!r} holds {wrong!r}; letters, digits, spaces and any of {signs} can be in "
            "a name: rename the file (or, of a recipe.yaml, its folder)"
        )
    if name.startswith(("-", " ")):
        raise RecipeError(
            f"{str(path)!r}: the name {name!r} begins with {name[0]!r}, as an option would: rename it"
        )
    return name


def _taken(char: str) -> bool:
    return char in SIGNS or unicodedata.category(char)[0] in "LMN"
