"""The inputs of a training job: of a recipe with all its seeds, and of one seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from lorakit.evaluation.answers import scored_splits, sliced
from lorakit.events import Observer
from lorakit.recipe.schema import Recipe
from lorakit.runs.folder import seed_folder
from lorakit.runs.result import Counts
from lorakit.tasks import Example


@dataclass(frozen=True, kw_only=True)
class RecipeJob:
    """A recipe whose inputs were read and fit together.

    recipe: as the run folder records it. resolved: with the precision of this machine. start: the
    adapter that training starts from.
    """

    recipe: Recipe
    resolved: Recipe
    run: Path
    splits: dict[str, list[Example]]
    start: Path | None
    counts: Counts
    accelerator: Accelerator
    observe: Observer

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    def of_seed(self, seed: int) -> SeedJob:
        return SeedJob(
            recipe=self.resolved,
            seed=seed,
            folder=seed_folder(self.run, seed),
            splits=self.splits,
            start=self.start,
            accelerator=self.accelerator,
            observe=self.observe,
        )


@dataclass(frozen=True, kw_only=True)
class SeedJob:
    """One seed of a recipe. recipe: with the precision of this machine. folder: of the seed."""

    recipe: Recipe
    seed: int
    folder: Path
    splits: dict[str, list[Example]]
    start: Path | None
    accelerator: Accelerator
    observe: Observer

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def scored(self) -> dict[str, list[Example]]:
        """The examples of every split that is scored."""
        return {split: self.splits[split] for split in scored_splits(self.recipe.task)}

    def predictions(self, split: str) -> Path:
        return predictions_file(self.folder, split)


def predictions_file(seed: Path, split: str) -> Path:
    """In the folder of a seed."""
    return seed / "predictions" / f"{split}.jsonl"


def untrained_slices(recipe: Recipe, splits: dict[str, list[Example]]) -> dict[str, str]:
    """split -> the part of it that the untrained model is scored on, where that is not all of
    it."""
    scored = scored_splits(recipe.task)
    return sliced(recipe.task, {split: len(splits[split]) for split in scored})
