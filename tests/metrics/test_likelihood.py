"""Loss and perplexity, by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from lorakit.metrics import Facts, Likelihood, Means, decimals_of, lower_is_better, metric, metrics


def test_each_token_counts_once():
    """(6 + 1) / (3 + 1), and not the mean of 2 and 1."""
    found = Likelihood([6.0, 1.0], [3, 1]).score()
    assert found == {"loss": 1.75, "perplexity": pytest.approx(math.exp(1.75))}


def test_the_order_does_not_matter():
    nats = [0.1 * n for n in range(1, 50)]
    tokens = [1 + n % 5 for n in range(1, 50)]
    assert Likelihood(nats, tokens).score() == Likelihood(nats[::-1], tokens[::-1]).score()


def test_a_loss_that_is_too_large_has_an_infinite_perplexity():
    assert Likelihood([8000.0], [1]).score() == {"loss": 8000.0, "perplexity": math.inf}


def test_weights_count_examples_several_times():
    weighted = Likelihood([6.0, 1.0], [3, 1]).weigh()(np.array([[1, 1], [0, 2], [2, 0]]))
    assert weighted["loss"].tolist() == [1.75, 1.0, 2.0]


@pytest.mark.parametrize(
    ("key", "lower"),
    [
        ("loss", True),
        ("perplexity", True),
        ("ter", True),
        ("ter_unseen", True),
        ("bleu", False),
        ("f1", False),
        ("lossless", False),
    ],
)
def test_the_direction_is_a_property_of_the_metric(key, lower):
    assert lower_is_better(key) is lower


def test_the_direction_of_another_packages_metric(monkeypatch):
    @metric(Facts(of="texts", keys=("wer",), lower=("wer",)))
    def wer(predictions, references):
        return Means({"wer": [0.0]})

    point = SimpleNamespace(load=lambda: wer)
    monkeypatch.setitem(metrics._entry_points, "wer", point)
    assert lower_is_better("wer")
    assert not lower_is_better("bleu")


def test_a_loss_has_more_decimals():
    assert (decimals_of("loss"), decimals_of("bleu")) == (4, 2)
