"""The recipes of the paper's GPT-2 tasks against its tables, typed from the paper and not from the
recipes."""

from __future__ import annotations

import pytest

from lorakit.recipe.load import load_recipe

SIZES = {"": (24, 1024), "gpt2_large/": (36, 1280)}
T11 = {  # weight decay, dropout, label smoothing, length penalty
    "e2e": (0.01, 0.1, 0.1, 0.9),
    "webnlg": (0.01, 0.1, 0.1, 0.8),
    "dart": (0.0, 0.0, 0.0, 0.8),
}
PUBLISHED = {
    "e2e": {
        "bleu": (70.4, 0.1),
        "nist": (8.85, 0.02),
        "meteor": (46.8, 0.2),
        "rouge_l": (71.8, 0.1),
        "cider": (2.53, 0.02),
    },
    "gpt2_large/e2e": {
        "bleu": (70.4, 0.1),
        "nist": (8.89, 0.02),
        "meteor": (46.8, 0.2),
        "rouge_l": (72.0, 0.2),
        "cider": (2.47, 0.02),
    },
    "webnlg": {
        "bleu": (55.3, 0.2),
        "bleu_seen": (62.1, 0.2),
        "bleu_unseen": (46.7, 0.4),
        "meteor": (0.41, None),
        "meteor_seen": (0.44, None),
        "meteor_unseen": (0.38, None),
        "ter": (0.39, None),
        "ter_seen": (0.33, None),
        "ter_unseen": (0.46, None),
    },
    "gpt2_large/webnlg": {
        "bleu": (57.0, 0.1),
        "bleu_seen": (64.0, 0.3),
        "bleu_unseen": (48.4, 0.3),
        "meteor": (0.42, None),
        "meteor_seen": (0.45, None),
        "meteor_unseen": (0.39, None),
        "ter": (0.38, None),
        "ter_seen": (0.32, None),
        "ter_unseen": (0.45, None),
    },
    "dart": {"bleu": (47.1, 0.2), "meteor": (0.39, None), "ter": (0.46, None)},
    "gpt2_large/dart": {"bleu": (47.5, 0.1), "meteor": (0.39, None), "ter": (0.45, None)},
}


@pytest.fixture(params=sorted(PUBLISHED))
def name(request):
    return request.param


@pytest.fixture
def loaded(name):
    return load_recipe(name)


def test_counts_are_the_computed_ones(name, loaded):
    layers, width = SIZES[name.rpartition("/")[0] + "/" if "/" in name else ""]
    assert loaded.recipe.model.shape["n_layer"] == layers
    assert loaded.recipe.model.shape["n_embd"] == width
    assert loaded.recipe.expect.sites == 2 * layers
    assert loaded.recipe.expect.trainable == 2 * 2 * layers * width * 4
    assert loaded.recipe.expect.trainable in (393_216, 737_280)


def test_hyperparameters_are_those_of_table_11(name, loaded):
    recipe = loaded.recipe
    decay, dropout, smoothing, penalty = T11[name.rpartition("/")[2]]
    assert (recipe.train.weight_decay, recipe.method.dropout, recipe.train.label_smoothing) == (
        decay,
        dropout,
        smoothing,
    )
    assert (recipe.decode.beams, recipe.decode.length_penalty, recipe.decode.no_repeat_ngram) == (
        10,
        penalty,
        4,
    )
    assert (recipe.method.r, recipe.method.alpha, recipe.method.targets) == (
        4,
        32,
        ("query", "value"),
    )
    train = recipe.train
    assert (train.epochs, train.global_batch_size, train.warmup, train.learning_rate) == (
        5,
        8,
        500,
        2e-4,
    )
    assert (train.schedule, train.max_grad_norm) == ("linear", 0)
    assert recipe.model.config == {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}, (
        "LoRA's dropout is the only one"
    )


def test_published_scores_are_those_of_the_paper(name, loaded):
    scores = loaded.recipe.expect.scores
    assert {
        key.removeprefix("test/"): (p.value, p.spread) for key, p in scores.items()
    } == PUBLISHED[name]
    assert all(key.startswith("test/") for key in scores)
    assert loaded.recipe.task.final_splits == ("test",)


def test_what_is_the_papers_says_so(loaded):
    sources = {key: origin.source for key, origin in loaded.origins.items()}
    assert (
        sources["method.r"] == sources["decode.beams"] == sources["train.learning_rate"] == "paper"
    )
    assert sources["train.adam_eps"] == "script"
