"""Samples: what the model writes for the same few examples at every evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorakit.evaluation.answers import Answer, writes
from lorakit.events import Event, Observer, SamplesWritten, SplitEvaluated, WrittenSample
from lorakit.recipe.schema import Recipe

SAMPLES = 3


def with_samples(
    observe: Observer, recipe: Recipe, answers: Mapping[str, Sequence[Answer]]
) -> Observer:
    """The observer, which is also told the samples of an evaluation after its scores.

    answers: of the latest evaluation, by split. The samples are of the first split, evenly spread.
    Nothing is generated for them.
    """
    if not writes(recipe.task):
        return observe
    first = recipe.task.eval_splits[0]

    def observe_both(event: Event) -> None:
        observe(event)
        if isinstance(event, SplitEvaluated) and event.split == first:
            own = answers[first]
            count = min(SAMPLES, len(own))
            chosen = [own[i * len(own) // count] for i in range(count)]
            samples = tuple(WrittenSample(a.id, a.text, str(a.prediction)) for a in chosen)
            observe(SamplesWritten(event.step, event.epoch, first, samples))

    return observe_both
