"""Templates: a page is filled by Jinja, which escapes every value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def fill(template: Path, **values: Any) -> str:
    """The text of a template. It may extend and include those of this folder.

    Values are escaped, except where the template marks them as `safe`: tables and pictures, which
    escape their texts themselves. A value that does not exist is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return env.get_template(template.name).render(**values)
