"""What an evaluation while training has to score, with each way to keep a state."""

from __future__ import annotations

import pytest

from lorakit.recipe.load import load_recipe
from lorakit.verbs.train import train_recipe


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], {False: True, True: True}),
        (["evaluate.keep=last"], {False: True, True: True}),
        (["evaluate.metric=loss"], {False: False, True: False}),
        (["evaluate.metric=loss", "evaluate.keep=last"], {False: False, True: True}),
        (["evaluate.metric=bleu"], {False: True, True: True}),
    ],
)
def test_texts_are_written_unless_a_loss_was_asked_for(settings, expected):
    recipe = load_recipe("quickstart_generate", settings).recipe
    assert {last: recipe.writes_at(last) for last in (False, True)} == expected


@pytest.mark.slow
@pytest.mark.parametrize("settings", [["evaluate.keep=last"], ["evaluate.metric=loss"]])
def test_a_writing_task_is_scored_twice(tmp_path, settings):
    small = ["data.limit={train: 32, validation: 4}", "train.epochs=2", "seeds=[0]", "~expect"]
    loaded = load_recipe("quickstart_generate", [*small, "decode.max_new_tokens=4", *settings])
    _, result = train_recipe(loaded, tmp_path, lambda event: None)
    assert {"exact_match", "loss"} <= set(result.seeds[0].scores["validation"])
