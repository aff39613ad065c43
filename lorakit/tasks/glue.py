"""GLUE (Wang et al. 2019, arXiv 1804.07461): `glue/mrpc` and seven more, from the hub or from the official TSV files.

The official files: https://gluebenchmark.com/tasks. What differs between the data sets stands in `_glue.py`, as data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import field_validator

from lorakit.errors import DataError, RecipeError, did_you_mean
from lorakit.metrics import Weighted
from lorakit.tasks._answers import (
    best_label,
    label_index,
    metric_keys,
    number,
    score_labels,
    score_numbers,
    single_value,
    weigh_labels,
    weigh_numbers,
)
from lorakit.tasks._base import Data, Example, Head, Prediction, Task
from lorakit.tasks._glue import LEFT_OUT, VARIANTS, Variant
from lorakit.tasks._glue_rows import Source, glue_rows


class Glue(Task):
    """One of GLUE's data sets, scored on its validation split as the paper scores it."""

    name: str
    """`glue/` and one of cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        family, _, variant = name.partition("/")
        if family == "glue" and variant in VARIANTS:
            return name
        if variant in LEFT_OUT:
            raise RecipeError(f"{name}: {LEFT_OUT[variant]}")
        known = [f"glue/{key}" for key in VARIANTS]
        raise RecipeError(
            f"no GLUE task is named {name!r}{did_you_mean(name, known)} (there are: {', '.join(known)})"
        )

    @property
    def variant(self) -> Variant:
        return VARIANTS[self._config]

    @property
    def _config(self) -> str:
        return self.name.removeprefix("glue/")

    @property
    def head(self) -> Head:  # type: ignore[override]
        return Head.CLASSIFICATION if self.labels else Head.REGRESSION

    @property
    def labels(self) -> tuple[str, ...]:
        return self.variant.labels

    @property
    def eval_splits(self) -> tuple[str, ...]:
        return tuple(split for split in self.variant.rows if split.startswith("validation"))

    @property
    def test_splits(self) -> tuple[str, ...]:
        return tuple(split for split in self.variant.rows if split.startswith("test"))

    @property
    def primary(self) -> str:
        return metric_keys(self.variant.metrics, "labels" if self.labels else "numbers")[0]

    def expected_rows(self) -> Mapping[str, int]:
        return self.variant.rows

    def read(self, split: str, data: Data) -> list[Example]:
        """Ids are `<split>-<row>`, rows counted from 0; a malformed one that is skipped counts, as on the hub."""
        return [
            Example(f"{split}-{source.index}", *source.texts, target=self._target(split, source))
            for source in glue_rows(self._config, split, data)
        ]

    def _target(self, split: str, source: Source) -> int | float | None:
        if split in self.test_splits:
            return None
        if not self.labels:
            return number(source.label, source.where, 0, 5)
        return label_index(source.label, self.labels, source.where)

    def to_prediction(self, output: Sequence[float] | str) -> Prediction:
        return best_label(output, self.labels) if self.labels else single_value(output)

    def to_reference(self, example: Example) -> Prediction:
        if self.labels:
            return self.labels[label_index(example.target, self.labels, example.id)]
        return number(example.target, example.id)

    def score(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> dict[str, float]:
        """In percent. Labels are given by name or by number."""
        if self.labels:
            return score_labels(self.variant.metrics, self.labels, predictions, references)
        return score_numbers(self.variant.metrics, predictions, references)

    def weighted(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> Weighted:
        """`score` where examples count several times, or not at all."""
        if self.labels:
            return weigh_labels(self.variant.metrics, self.labels, predictions, references)
        return weigh_numbers(self.variant.metrics, predictions, references)

    def submission(self, split: str, predictions: Mapping[str, Prediction]) -> tuple[str, str]:
        """File name and text of a test split for gluebenchmark.com, from example id -> prediction.

        DataError: not a test split, or not one prediction for each official row.
        """
        if split not in self.test_splits:
            raise DataError(
                f"a submission is made of {' or '.join(self.test_splits)}, not of {split!r}"
            )
        ids = [f"{split}-{index}" for index in range(self.variant.rows[split])]
        missing = [id for id in ids if id not in predictions]
        if missing or len(predictions) > len(ids):
            raise DataError(
                f"{split} has {len(ids)} rows, and there are {len(predictions)} predictions"
                + (f" (none for {missing[0]})" if missing else "")
                + "; predict the whole official split, without data.limit"
            )
        lines = [f"{index}\t{self._submitted(predictions[id], id)}" for index, id in enumerate(ids)]
        suffix = {"test_matched": "-m", "test_mismatched": "-mm"}.get(split, "")
        return f"{self.variant.folder}{suffix}.tsv", "\n".join(["index\tprediction", *lines, ""])

    def _submitted(self, prediction: Prediction, where: str) -> str:
        if not self.labels:
            return f"{min(5.0, max(0.0, number(prediction, where))):.3f}"
        index = label_index(prediction, self.labels, where)
        return str(index) if self.variant.numbered else self.labels[index]


PLUGIN = Glue
