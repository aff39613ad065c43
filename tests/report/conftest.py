"""Small results with invented numbers."""

from __future__ import annotations

from typing import Any

import pytest

from lorakit.recipe.expect import Published
from lorakit.runs.result import Check, Counts, Result, SeedResult

ACCURACY = (90.0, 89.5, 90.4)


def seed_result(seed: int, accuracy: float, f1: float = 92.0, **more: Any) -> SeedResult:
    return SeedResult(
        **{
            "seed": seed,
            "scores": {"validation": {"accuracy": accuracy, "f1": f1}},
            "base_scores": {"validation": {"accuracy": 31.5 + seed}},
            "best_epoch": 2.0,
            "epochs": 3.0,
            "steps": 60,
            "seconds": {"train": 12.5, "whole": 20.0},
            "checks": (
                Check(
                    name="merge",
                    passed=True,
                    value=1.3e-6,
                    tolerance=1e-4,
                    note="folded into the weights",
                ),
            ),
            "delta_norms": {
                f"encoder.layer.{i}.self.{role}": 0.01 + i
                for i in range(4)
                for role in ("query", "value")
            },
            **more,
        }
    )


@pytest.fixture(scope="session")
def make_result():
    """make_result(accuracies, **fields that differ): a seed per accuracy."""

    def make(accuracies: tuple[float, ...] = ACCURACY, **more: Any) -> Result:
        return Result(
            **{
                "recipe": "glue_mrpc",
                "task": "glue/mrpc",
                "model": "roberta-base",
                "method": {"name": "lora", "targets": ["query", "value"], "r": 8, "alpha": 16.0},
                "primary": "accuracy",
                "splits": ("validation",),
                "counts": Counts(sites=24, trainable=294912, fresh=592130, total=124055040),
                "seeds": tuple(
                    seed_result(seed, accuracy) for seed, accuracy in enumerate(accuracies)
                ),
                "published": {"accuracy": Published(value=89.7, spread=0.7)},
                "published_source": "Table 2",
                "recipe_values": {"about": "MRPC", "train": {"learning_rate": 4e-4}},
                "environment": {
                    "python": "3.12.1",
                    "packages": {"torch": "2.9.0"},
                    "devices": ["CPU"],
                    "cuda": None,
                },
                "started": "2026-01-01T10:00:00+00:00",
                "finished": "2026-01-01T10:30:00+00:00",
                "notes": ("started from glue_mnli",),
                **more,
            }
        )

    return make


@pytest.fixture(scope="session")
def logs() -> dict[int, list[dict[str, Any]]]:
    """Three seeds, three epochs of 20 steps."""

    def lines(seed: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{"event": "start", "steps": 60}]
        for step in range(1, 61):
            found.append(
                {
                    "event": "step",
                    "step": step,
                    "epoch": step / 20,
                    "loss": 0.7 / step,
                    "learning_rate": 1e-4 / step,
                    "grad_norm": 0.5,
                    "tokens_per_second": 1000.0 + seed,
                    "memory_mib": 512.0 + step,
                }
            )
            if step % 20 == 0:
                done = {"event": "eval", "step": step, "epoch": step / 20, "split": "validation"}
                found.append(
                    {
                        **done,
                        "scores": {"accuracy": 80.0 + seed + step / 20, "f1": 85.0 + step / 20},
                    }
                )
        return found

    return {seed: lines(seed) for seed in range(3)}


@pytest.fixture(autouse=True)
def pictures() -> None:
    """Drawn: they are what is tested."""
