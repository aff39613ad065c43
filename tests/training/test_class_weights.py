"""Class weights, and the losses of heads with labels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lorakit.errors import RecipeError
from lorakit.recipe.load import compose
from lorakit.tasks import Example, Head
from lorakit.training.class_weights import class_weights
from lorakit.training.loss import loss_sum


def recipe(task: str, weights):
    parts = {
        "task": {"name": task, "train": "a.csv", "validation": "none", "classes": ["a", "b", "c"]},
        "model": {"name": "-"},
        "method": {"name": "full"},
        "train": {"class_weights": weights},
    }
    return compose(parts).recipe if hasattr(compose(parts), "recipe") else compose(parts)


def examples(*targets) -> list[Example]:
    return [Example(str(i), "x", target=target) for i, target in enumerate(targets)]


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    targets = [0] * 7 + [1] * 2 + [2]
    found = class_weights(recipe("classification", "balanced"), examples(*targets))
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=np.array(targets))
    assert found == pytest.approx(tuple(wanted))
    # the mean over the examples is 1, so the size of the loss stays
    assert np.mean([found[t] for t in targets]) == pytest.approx(1.0)


def test_a_label_that_is_absent_does_not_count():
    found = class_weights(recipe("classification", "balanced"), examples(0, 0, 0, 1))
    assert found == pytest.approx((4 / 6, 2.0, 1.0))


def test_balanced_weights_of_sets_are_absent_over_present():
    targets = [(1, 0, 0), (1, 0, 1), (1, 0, 0), (1, 0, 0)]
    assert class_weights(recipe("multilabel", "balanced"), examples(*targets)) == (1.0, 1.0, 3.0)


def test_balanced_weights_of_words_count_words():
    targets = [(0, 0, 1), (0, 2)]
    found = class_weights(recipe("token_classification", "balanced"), examples(*targets))
    assert found == pytest.approx((5 / 9, 5 / 3, 5 / 3))


def test_weights_by_name():
    assert class_weights(recipe("classification", {"b": 2.5}), []) == (1.0, 2.5, 1.0)
    assert class_weights(recipe("classification", None), []) is None
    with pytest.raises(RecipeError, match=r"'bb' is not a label of this task; did you mean 'b'"):
        class_weights(recipe("classification", {"bb": 2.0}), [])


class Fixed(nn.Module):
    """A model that gives the logits of the batch's rows."""

    def forward(self, logits: torch.Tensor, attention_mask=None):
        if logits.shape[-1] == 2 and logits.ndim == 3:
            start, end = logits.unbind(-1)
            return SimpleNamespace(start_logits=start, end_logits=end)
        return SimpleNamespace(logits=logits)


def loss(head: Head, logits: torch.Tensor, labels: torch.Tensor, weights=None, **more) -> float:
    batch = {"logits": logits, "labels": labels, **more}
    return float(loss_sum(Fixed(), batch, head, weights=weights))


def test_a_weighted_loss_is_torchs():
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    weights = (0.5, 2.0, 3.0)
    wanted = F.cross_entropy(logits, labels, torch.tensor(weights), reduction="sum")
    assert loss(Head.CLASSIFICATION, logits, labels, weights) == pytest.approx(float(wanted))
    # the sum does not depend on how the batch is cut
    parts = [
        loss(Head.CLASSIFICATION, logits[i:j], labels[i:j], weights) for i, j in ((0, 2), (2, 6))
    ]
    assert sum(parts) == pytest.approx(float(wanted), rel=1e-5)


def test_the_loss_of_sets_is_transformers_mean_over_labels():
    logits, labels = torch.randn(4, 3), torch.randint(0, 2, (4, 3)).float()
    weights = (1.0, 2.0, 5.0)
    own = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weights))(logits, labels)
    assert loss(Head.MULTILABEL, logits, labels, weights) == pytest.approx(4 * float(own), rel=1e-5)


def test_the_loss_of_words_leaves_other_tokens_out():
    logits = torch.randn(2, 4, 3)
    labels = torch.tensor([[-100, 1, -100, 2], [0, -100, -100, -100]])
    picked = logits[[0, 0, 1], [1, 3, 0]]
    wanted = F.cross_entropy(picked, torch.tensor([1, 2, 0]), reduction="sum")
    assert loss(Head.TOKENS, logits, labels) == pytest.approx(float(wanted), rel=1e-5)


def test_the_loss_of_spans_does_not_depend_on_padding():
    logits, labels = torch.randn(1, 5, 2), torch.tensor([[1, 3]])
    alone = loss(Head.SPANS, logits, labels, attention_mask=torch.ones(1, 5))
    wanted = F.cross_entropy(logits[..., 0], labels[:, 0]) + F.cross_entropy(
        logits[..., 1], labels[:, 1]
    )
    assert alone == pytest.approx(float(wanted) / 2, rel=1e-5)
    padded = torch.cat([logits, 9 * torch.ones(1, 3, 2)], dim=1)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]])
    assert loss(Head.SPANS, padded, labels, attention_mask=mask) == pytest.approx(alone, rel=1e-5)
