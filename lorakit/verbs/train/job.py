"""The inputs of a training job: a recipe with its data, and the seed that is trained."""

from __future__ import annotations

from collections.abc import Sequence
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
class TrainJob:
    """A recipe whose inputs were read and fit together.

    recorded: the recipe as the run folder records it. recipe: the same with the precision of this
    machine. detected: what was found out about the files of `splits`. start: the adapter that
    training starts from. seed: the one that is trained now.
    """

    recorded: Recipe
    recipe: Recipe
    run: Path
    splits: dict[str, Sequence[Example]]
    detected: tuple[str, ...]
    start: Path | None
    counts: Counts
    accelerator: Accelerator
    observe: Observer
    seed: int

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def folder(self) -> Path:
        """The folder of the seed."""
        return seed_folder(self.run, self.seed)

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def scored(self) -> dict[str, Sequence[Example]]:
        """The examples of every split that is scored."""
        return {split: self.splits[split] for split in scored_splits(self.recipe.task)}

    @property
    def untrained_slices(self) -> dict[str, str]:
        """Split -> the part of it that the untrained model is scored on, where it is a part."""
        rows = {split: len(examples) for split, examples in self.scored.items()}
        return sliced(self.recipe.task, rows)


def predictions_file(seed: Path, split: str) -> Path:
    """In the folder of a seed."""
    return seed / "predictions" / f"{split}.jsonl"
