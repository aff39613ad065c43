"""The wrapped metrics, without network."""

from __future__ import annotations

import pytest

from lorakit.errors import DataError, RecipeError
from lorakit.metrics import as_evaluate, facts_of, metrics

pytestmark = pytest.mark.usefixtures("no_data")

PAIRS = {
    "labels": ([1, 1, 0, 0, 1], [1, 0, 0, 1, 1]),
    "label sets": ([[0], [1, 2], []], [[0], [1], [2]]),
    "tags": ([["B-X", "O"], ["O"]], [["B-X", "O"], ["B-X"]]),
    "numbers": ([1.0, 2.0, 3.0], [1.0, 3.0, 2.5]),
    "texts": (["the cat sat down now", "b"], ["the cat sat down here", "b"]),
}


@pytest.mark.parametrize("name", metrics.names())
def test_the_wrapped_metric_gives_what_the_function_gives(name, tmp_path):
    predictions, references = PAIRS[facts_of(name).of]
    expected = metrics.get(name)(predictions, references)
    wrapped = as_evaluate(name, cache_dir=str(tmp_path))
    assert wrapped.compute(predictions=predictions, references=references) == expected
    wrapped.add_batch(predictions=predictions[:1], references=references[:1])
    wrapped.add_batch(predictions=predictions[1:], references=references[1:])
    assert wrapped.compute() == expected


def test_texts_with_several_references(tmp_path):
    references = [["the cat sat down", "the cat sat down now"], ["c"]]
    predictions = ["the cat sat down now", "b"]
    wrapped = as_evaluate("exact_match", cache_dir=str(tmp_path))
    assert wrapped.compute(predictions=predictions, references=references) == {"exact_match": 0.5}


def test_combine(tmp_path):
    import evaluate

    both = evaluate.combine(
        [as_evaluate(name, cache_dir=str(tmp_path)) for name in ("accuracy", "f1")]
    )
    assert both.compute(predictions=[1, 0], references=[1, 1]) == {
        "accuracy": 0.5,
        "f1": pytest.approx(2 / 3),
    }


def test_errors(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'accuracy'"):
        as_evaluate("acuracy")
    with pytest.raises(DataError, match=r"f1 .*\[2\]"):
        as_evaluate("f1", cache_dir=str(tmp_path)).compute(predictions=[0, 2], references=[0, 1])


def test_the_package_has_no_other_lazy_names():
    import lorakit.metrics

    with pytest.raises(AttributeError, match="has no attribute 'as_evaluat'"):
        _ = lorakit.metrics.as_evaluat  # type: ignore[attr-defined]
