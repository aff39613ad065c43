"""The optimizer groups of a method (`Method.parameter_groups`), validated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lorakit.errors import RecipeError, did_you_mean
from lorakit.optimizers import RATIO
from lorakit.recipe.train import Train

KNOWN = ("params", "lr", RATIO, "weight_decay", "betas", "eps")


def checked(
    groups: Sequence[Any], trained: Mapping[str, nn.Parameter], settings: Train
) -> list[dict[str, Any]]:
    """The groups as AdamW takes them, with the recipe's weight decay and `lr_ratio` 1 as defaults.

    RecipeError: an unknown key; a rate that is not a positive number; a trained parameter that is
    in no group or in two; a parameter that is not trained.
    """
    made = [
        _one(group, f"group {i} of {len(groups)}", settings) for i, group in enumerate(groups, 1)
    ]
    _refuse_other_parameters(made, trained)
    return made


def _one(group: Any, where: str, settings: Train) -> dict[str, Any]:
    if not isinstance(group, Mapping) or "params" not in group:
        raise _refused(f"{where} is {group!r:.60}; a mapping with `params` is expected")
    for key in group:
        if key not in KNOWN:
            hint = did_you_mean(str(key), KNOWN)
            raise _refused(f"{where} has the unknown key {key!r}{hint} (known: {', '.join(KNOWN)})")
    params = group["params"]
    params = [params] if isinstance(params, nn.Parameter) else list(params)
    decay = group.get("weight_decay", settings.weight_decay)
    _refuse_number(decay, f"{where}: weight_decay", least_allowed=True)
    _refuse_number(group.get("eps", settings.adam_eps), f"{where}: eps", least_allowed=False)
    _refuse_betas(group.get("betas", settings.adam_betas), f"{where}: betas")
    others = {key: group[key] for key in ("betas", "eps") if key in group}
    return {
        "params": params,
        "weight_decay": decay,
        RATIO: _ratio(group, where, settings),
        **others,
    }


def _ratio(group: Mapping[str, Any], where: str, settings: Train) -> float:
    if "lr" in group and RATIO in group:
        raise _refused(f"{where} has both lr and {RATIO}; give one of the two")
    for key in ("lr", RATIO):
        if key in group:
            _refuse_number(group[key], f"{where}: {key}", least_allowed=False)
    if "lr" in group:
        return float(group["lr"]) / settings.learning_rate
    return float(group.get(RATIO, 1.0))


def _refuse_number(value: Any, what: str, least_allowed: bool) -> None:
    is_number = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )
    if not is_number or value < 0 or (value == 0 and not least_allowed):
        wanted = "a number of 0 or more" if least_allowed else "a number above 0"
        raise _refused(f"{what} is {value!r}; {wanted} is expected")


def _refuse_betas(value: Any, what: str) -> None:
    is_pair = isinstance(value, (list, tuple)) and len(value) == 2
    if not is_pair or not all(isinstance(beta, (int, float)) and 0 <= beta < 1 for beta in value):
        raise _refused(f"{what} is {value!r}; two numbers from 0 to below 1 are expected")


def _refuse_other_parameters(
    groups: Sequence[Mapping[str, Any]], trained: Mapping[str, nn.Parameter]
) -> None:
    names = {id(parameter): name for name, parameter in trained.items()}
    seen: dict[int, int] = {}
    for i, group in enumerate(groups, 1):
        for parameter in group["params"]:
            if id(parameter) not in names:
                shape = tuple(getattr(parameter, "shape", ()))
                raise _refused(f"group {i} holds a parameter of shape {shape} that is not trained")
            if id(parameter) in seen:
                both = f"in group {seen[id(parameter)]} and in group {i}"
                raise _refused(f"{names[id(parameter)]} is {both}; one of them would be lost")
            seen[id(parameter)] = i
    left = [name for key, name in names.items() if key not in seen]
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        raise _refused(f"no group holds {', '.join(left[:3])}{more}, so it would never learn")


def _refused(what: str) -> RecipeError:
    return RecipeError(f"the method's own optimizer groups (parameter_groups): {what}")
