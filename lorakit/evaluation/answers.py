"""What is asked, what was answered, and how that is scored; no model and no tensors, so it loads in no time."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorakit.errors import DataError
from lorakit.metrics import Failed, failures
from lorakit.tasks import Data, Example, Head, Prediction, Task

log = logging.getLogger(__name__)

Scores = dict[str, dict[str, float]]
"""split -> metric -> value"""

UNTRAINED_TEXTS, UNTRAINED_ANSWERS = 64, 1000
"""The model before training, or with its adapter off, is scored on this many examples of a split at most: enough to
show where it starts. A text costs hundreds of times what an answer with a label does."""


def untrained_most(task: Task) -> int:
    return UNTRAINED_TEXTS if writes(task) else UNTRAINED_ANSWERS


def writes(task: Task) -> bool:
    """The answer is a text of the model's own, and not a label, a value or one of a few choices."""
    return task.head is Head.CAUSAL and not task.choices


@dataclass(frozen=True)
class Answer:
    """What the model said to one example. output: logits, or the raw text; ended: it is not cut at max_new_tokens."""

    id: str
    prediction: Prediction
    reference: Prediction | list[str] | None
    output: list[float] | str
    text: str
    group: str = ""
    ended: bool = True

    def line(self) -> dict[str, Any]:
        """As a line of predictions/SPLIT.jsonl."""
        key = "references" if isinstance(self.reference, list) else "reference"
        more = ({"group": self.group} if self.group else {}) | (
            {} if self.ended else {"ended": False}
        )
        return {
            "id": self.id,
            "input": self.text,
            "prediction": self.prediction,
            key: self.reference,
            "output": self.output,
            **more,
        }


def scored_splits(task: Task, train: bool = False) -> tuple[str, ...]:
    """What is scored, the split that selects the best state first; with the training split before it, if asked for."""
    return (*([task.train_split] if train else []), *task.eval_splits, *task.final_splits)


def read_splits(task: Task, data: Data, splits: Sequence[str]) -> dict[str, list[Example]]:
    """The rows of each split; DataError for an empty one, a line in the log for one of unofficial size."""
    found = {}
    for split in splits:
        found[split] = task.read(split, data)
        if not found[split]:
            raise DataError(f"{task.name}: the split {split} is empty")
        official = task.expected_rows().get(split)
        if official is not None and split not in data.limit and len(found[split]) != official:
            log.warning(
                "%s %s has %d rows, officially %d", task.name, split, len(found[split]), official
            )
    return found


def sliced(task: Task, rows: Mapping[str, int]) -> dict[str, str]:
    """split -> "64 of 547 examples", where the untrained model is scored on a slice of it."""
    most = untrained_most(task)
    return {split: f"{most:,} of {n:,} examples" for split, n in rows.items() if n > most}


def score_answers(
    task: Task, answers: Sequence[Answer], failed: Failed | None = None
) -> dict[str, float]:
    """Of all answers, and of each group that there is, whose metrics are named `bleu_seen`.

    failed: where a metric that cannot be computed is noted, and its value is NaN. Without it that is a MetricError.
    """
    if failed is None:
        return _scores(task, answers)
    with failures() as found:
        scores = _scores(task, answers)
    for metric, why in found.items():
        log.warning("%s is not computed: %s", metric, why)
    failed.update(found)
    return scores


def _scores(task: Task, answers: Sequence[Answer]) -> dict[str, float]:
    references: list[Any] = [answer.reference for answer in answers]
    if any(reference is None for reference in references):
        raise DataError(
            "these examples have no answers to compare with; they can be predicted, not scored"
        )
    scores = task.score([answer.prediction for answer in answers], references)
    for group in sorted({answer.group for answer in answers} - {""}):
        part = [answer for answer in answers if answer.group == group]
        found = task.score(
            [a.prediction for a in part], [a.reference for a in part if a.reference is not None]
        )
        scores |= {f"{metric}_{group}": value for metric, value in found.items()}
    return scores
