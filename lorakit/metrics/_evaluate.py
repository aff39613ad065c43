"""A metric as an `evaluate.Metric`, made here: `evaluate.load` would fetch code from the hub, or run it from the
current folder."""

from __future__ import annotations

from typing import Any

import evaluate
from datasets import Features, List, Value

from lorakit.metrics import facts_of, metrics

_FEATURES = {
    "labels": [Features({"predictions": Value("int64"), "references": Value("int64")})],
    "numbers": [Features({"predictions": Value("float64"), "references": Value("float64")})],
    "texts": [
        Features({"predictions": Value("string"), "references": List(Value("string"))}),
        Features({"predictions": Value("string"), "references": Value("string")}),
    ],
}


class _Wrapped(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        name = self.config_name
        features = _FEATURES[facts_of(name).of]
        return evaluate.MetricInfo(
            description=metrics.get(name).__doc__ or name,
            citation="",
            inputs_description=f"predictions, references: {facts_of(name).of}",
            features=features if len(features) > 1 else features[0],  # type: ignore[arg-type]
        )

    def _compute(
        self, *, predictions: Any = None, references: Any = None, **_: Any
    ) -> dict[str, float]:
        return metrics.get(self.config_name)(predictions, references)


def as_evaluate(name: str, **options: Any) -> evaluate.Metric:
    """The metric of that name as an `evaluate.Metric`: `add_batch`, `compute`, several processes, `evaluate.combine`.

    Its values are those of the function: fractions, not percent. options are those of `evaluate.Metric`; `cache_dir` is
    where it keeps what was added, by default `~/.cache/huggingface/metrics`. RecipeError: no metric of that name.
    """
    metrics.get(name)
    return type(f"{name.title().replace('_', '')}", (_Wrapped,), {})(config_name=name, **options)
