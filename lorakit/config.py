"""The base of every configuration object: frozen, strict, closed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError


class Config(BaseModel):
    """Values are set once, unknown keys are refused, and text is not taken for a number."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def first_problem(error: ValidationError) -> str:
    """The first of what a file holds and should not: where, what was found, and what is wanted."""
    problem = error.errors(include_url=False)[0]
    if not problem["loc"]:
        return problem["msg"]  # not JSON at all: the message has line and column
    found = "absent" if problem["type"] == "missing" else repr(problem["input"])[:60]
    return f"{'.'.join(map(str, problem['loc']))} is {found} ({problem['msg']})"
