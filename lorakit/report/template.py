"""Templates: a page is filled by Jinja, which escapes every value."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent


def fill(template: Path, **values: Any) -> str:
    """The text of a template. It may extend and include those of this folder.

    Values are escaped, except where the template marks them as `safe`: tables and pictures, which
    escape their texts themselves. A value that does not exist is an error.
    """
    return _environment(template.parent).get_template(template.name).render(**values)


@cache
def _environment(folder: Path) -> Environment:
    """One per folder, because it keeps its templates: to compile them takes longer than to fill
    them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
