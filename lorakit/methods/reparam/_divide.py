"""The error of a weight whose size a method's number of blocks does not divide."""

from __future__ import annotations

from lorakit.errors import ModelError
from lorakit.methods.reparam import Site


def refuse_indivisible(method: str, site: Site, field: str, parts: int) -> None:
    """ModelError: `parts` does not divide both the rows and the columns of the site's weight."""
    out, in_ = site.shape
    if out % parts or in_ % parts:
        raise ModelError(
            f"{method}: {site.name} is {out} x {in_}, and method.{field} = {parts} does not divide "
            "both; choose another number, or other targets"
        )
