"""`lorakit bench merge`: what surrounds training: put an adapter on, save it, read it back, merge it."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

from lorakit.adapters.about import About
from lorakit.adapters.attach import attach_adapter
from lorakit.adapters.files import read_adapter
from lorakit.adapters.save import save_adapter
from lorakit.bases.base import DTYPES
from lorakit.bench._base import Bench, Measured, Setting
from lorakit.bench._models import bare, with_peft
from lorakit.bench._rounds import measure
from lorakit.errors import InputError
from lorakit.methods.reparam.lora import LoRA
from lorakit.models import family_of
from lorakit.recipe.schema import Recipe

STAGES = ("attach", "save", "read", "merge")


class Merge(Bench):
    """A ratio for each stage. Both write the same tensors, synced to the disk by lorakit only."""

    name = "merge"
    peers = ("peft",)

    def run(self, recipe: Recipe, setting: Setting) -> Measured:
        if not isinstance(recipe.method, LoRA):
            raise InputError(
                f"bench merge is of LoRA, and the recipe's method is {recipe.method.name}"
            )
        base = bare(recipe, setting.layers, 0.0).to(setting.device, DTYPES[setting.precision])
        with tempfile.TemporaryDirectory() as folder:
            runs = {
                "lorakit": _Ours(recipe, base, Path(folder) / "ours"),
                "peft": _Theirs(recipe, base, Path(folder)),
            }
            ratios = []
            for stage in STAGES:
                ways = {name: runs[name].prepared(stage) for name in ("lorakit", *setting.against)}
                rounds = measure(ways, setting.rounds, setting.device, anew=True)
                ratios += [rounds.ratio("lorakit", peer).named(stage) for peer in setting.against]
        return Measured(ratios)


def about_of(recipe: Recipe, base: Any) -> About:
    """What travels with an adapter of a random base, whose head is newly initialised."""
    head, method = recipe.task.head.value, recipe.method.model_dump(mode="json")
    newly_initialised = [
        n for n, _ in base.named_parameters() if n.startswith(("classifier.", "score."))
    ]
    return About(
        "random",
        None,
        base.config.model_type,
        head,
        [],
        {},
        128,
        method,
        newly_initialised,
        "",
        "bench",
    )


class _Ours:
    def __init__(self, recipe: Recipe, base: Any, folder: Path):
        self.method, self.base, self.folder = recipe.method, base, folder
        self.roles = family_of(base.config.model_type).places(base.config)  # type: ignore[union-attr]
        self.about = about_of(recipe, base)
        self.newly_initialised = self.about.fresh

    def prepared(self, stage: str) -> Any:
        def make() -> Any:
            model = copy.deepcopy(self.base)
            if stage == "attach":
                return lambda: self.method.attach(model, self.roles, self.newly_initialised)
            if stage == "read":
                return lambda: attach_adapter(
                    read_adapter(self.folder),
                    model,
                    self.roles,
                    self.newly_initialised,
                    check_base=False,
                )
            attachment = self.method.attach(model, self.roles, self.newly_initialised)
            return (
                (lambda: save_adapter(self.folder, attachment, self.about))
                if stage == "save"
                else attachment.merge
            )

        return make


class _Theirs:
    def __init__(self, recipe: Recipe, base: Any, folder: Path):
        self.method, self.base, self.folder = recipe.method, base, folder / "theirs"

    def prepared(self, stage: str) -> Any:
        from peft import PeftModel

        method: Any = self.method

        def make() -> Any:
            model = copy.deepcopy(self.base)
            if stage == "attach":
                return lambda: with_peft(model, method.r, int(method.alpha), 0.0)
            if stage == "read":
                return lambda: PeftModel.from_pretrained(model, str(self.folder))
            adapted: Any = with_peft(model, method.r, int(method.alpha), 0.0)
            return (
                (lambda: adapted.save_pretrained(self.folder))
                if stage == "save"
                else adapted.merge_and_unload
            )

        return make


PLUGIN = Merge()
