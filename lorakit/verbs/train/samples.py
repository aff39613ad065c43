"""Samples: what the model writes for the same few examples at every evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorakit.evaluation.answers import Answer, generates
from lorakit.events import Event, Observer, SamplesWritten, SplitEvaluated, WrittenSample
from lorakit.recipe.schema import Recipe

SAMPLES = 3


def with_samples(
    observe: Observer, recipe: Recipe, answers: Mapping[str, Sequence[Answer]]
) -> Observer:
    """The observer, which is also told the samples of an evaluation after its scores.

    answers: of the latest evaluation, by split; to all examples, or to the `sampled` ones. The
    samples are of the first split.
    """
    if not generates(recipe.task) or not recipe.task.eval_splits:
        return observe
    first = recipe.task.eval_splits[0]

    def observe_both(event: Event) -> None:
        observe(event)
        if isinstance(event, SplitEvaluated) and event.split == first:
            own = answers[first]
            chosen = [own[i] for i in sampled(len(own))]
            samples = tuple(WrittenSample(a.id, a.text, str(a.prediction)) for a in chosen)
            observe(SamplesWritten(event.step, event.epoch, first, samples))

    return observe_both


def sampled(examples: int) -> list[int]:
    """The numbers of the examples that are shown, evenly spread."""
    count = min(SAMPLES, examples)
    return [i * examples // count for i in range(count)]
