"""Config: the base of every configuration object: frozen, strict, closed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

MAX_VALUE_CHARACTERS = 60


class Config(BaseModel):
    """Values are set once, unknown keys are refused, and text is not converted to a number."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def first_problem(error: ValidationError) -> str:
    """The first problem of a file that lorakit wrote: where, what was found, what is expected."""
    problem = error.errors(include_url=False)[0]
    if not problem["loc"]:
        return problem["msg"]  # not JSON: the message has line and column
    found = "absent"
    if problem["type"] != "missing":
        found = repr(problem["input"])[:MAX_VALUE_CHARACTERS]
    return f"{'.'.join(map(str, problem['loc']))} is {found} ({problem['msg']})"
