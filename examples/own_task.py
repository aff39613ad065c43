"""Your own task: reviews with one to five stars, in a file format of its own, in one file.

Each line of the file is a number of stars, a tab and a text. The task reads the file into examples,
turns the model's logits into an answer, and scores answers. A recipe can name the task
(`task: {name: stars, train: ..., validation: ...}`) once an installed package registers the class
by an entry point:

    [project.entry-points."lorakit.tasks"]
    stars = "my_package.own_task:Stars"

    python examples/own_task.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from lorakit.errors import DataError
from lorakit.tasks import Data, Example, Head, Task


class Stars(Task):
    """The fields of this class are what a recipe can set."""

    name: Literal["stars"] = "stars"
    head: ClassVar[Head] = Head.CLASSIFICATION
    train: str
    validation: str

    @property
    def labels(self) -> tuple[str, ...]:
        return ("1", "2", "3", "4", "5")

    @property
    def primary(self) -> str:
        return "accuracy"

    def read(self, split: str, data: Data) -> list[Example]:
        limit = data.limit_of(split, ("train", "validation"))
        path = {"train": self.train, "validation": self.validation}[split]
        examples = []
        for number, line in enumerate(Path(path).read_text("utf-8").splitlines()[:limit], start=1):
            stars, _, text = line.partition("\t")
            if stars not in self.labels:
                raise DataError(f"{path}:{number}: {stars!r} stars; give 1 to 5, a tab and a text")
            target = self.labels.index(stars)
            where = f"{path}:{number}"
            examples.append(Example(f"{split}-{number}", text, target=target, where=where))
        return examples

    def to_prediction(self, output: Sequence[float] | str) -> str:
        """The label with the highest logit."""
        logits = [float(value) for value in output]
        return self.labels[logits.index(max(logits))]

    def to_reference(self, example: Example) -> str:
        return self.labels[int(example.target or 0)]

    def score(
        self, predictions: Sequence[str | int | float], references: Sequence
    ) -> dict[str, float]:
        """accuracy, and within_one: the answers at most one star off; both in percent."""
        if not predictions or len(predictions) != len(references):
            raise DataError(f"{len(predictions)} predictions for {len(references)} references")
        pairs = zip(predictions, references, strict=True)
        errors = [abs(int(prediction) - int(reference)) for prediction, reference in pairs]
        return {
            "accuracy": 100 * sum(error == 0 for error in errors) / len(errors),
            "within_one": 100 * sum(error <= 1 for error in errors) / len(errors),
        }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reviews.txt"
        path.write_text("5\ta wonderful film\n2\trather dull\n4\ta good book\n", encoding="utf-8")
        task = Stars(train=str(path), validation=str(path))
        examples = task.read("validation", Data())
    references = [task.to_reference(example) for example in examples]
    outputs = [[0, 0, 0, 1, 3], [2, 1, 0, 0, 0], [0, 0, 0, 4, 1]]  # logits, one per label
    predictions = [task.to_prediction(output) for output in outputs]
    for example, prediction in zip(examples, predictions, strict=True):
        print(f"{example.text}: {prediction} of 5 stars")
    print(task.score(predictions, references))


if __name__ == "__main__":
    main()
