"""The cells of a study that has one for each plug-in of some registries.

So a method that is added to its folder is in the study too, without an edit of the study's file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lorakit.inits import inits
from lorakit.methods import methods
from lorakit.methods.reparam.lora import LoRA
from lorakit.optimizers import optimizers
from lorakit.recipe.override import as_override
from lorakit.recipe.train import Train
from lorakit.studies.schema import Kind


class PluginCell(NamedTuple):
    """The cell of a plug-in. unavailable: why this machine cannot run it; "" where it can."""

    name: str
    overrides: tuple[str, ...]
    unavailable: str = ""


def cells_of_every(kinds: tuple[Kind, ...]) -> Iterator[PluginCell]:
    """The cell of each plug-in of these kinds.

    A method has the sizes that it declares for tiny models (`Method.tiny`). An initialisation or an
    optimizer is used with LoRA; its defaults are left out, because they are the cell of LoRA.
    """
    for kind in kinds:
        yield from _OF_KIND[kind]()


def _methods() -> Iterator[PluginCell]:
    for name in methods.names():
        fields = {"name": name, **methods.get(name).tiny}
        yield PluginCell(name, (as_override("method", fields),))


def _inits() -> Iterator[PluginCell]:
    for name in sorted({*inits.names()} - {LoRA().init.name}):
        fields = {"name": "lora", "init": name}
        yield PluginCell(f"init {name}", (as_override("method", fields),))


def _optimizers() -> Iterator[PluginCell]:
    for name in sorted({*optimizers.names()} - {Train().optimizer.name}):
        optimizer = optimizers.get(name).model_validate({})
        overrides = [as_override("train.optimizer", name)]
        if optimizer.for_method != LoRA().name:
            overrides.append(as_override("method", {"name": optimizer.for_method}))
        # an average of the steps takes the place of a rate that falls
        if optimizer.averages:
            overrides.append("train.schedule=constant")
        yield PluginCell(f"optimizer {name}", tuple(overrides), optimizer.unavailable())


_OF_KIND = {"methods": _methods, "inits": _inits, "optimizers": _optimizers}
