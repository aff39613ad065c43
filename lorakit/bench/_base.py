"""The contract of a benchmark: a recipe and a setting to ratios, and to bytes where it counts them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

import torch

from lorakit.bench._rounds import Ratio
from lorakit.errors import InputError, did_you_mean
from lorakit.recipe.schema import Recipe
from lorakit.report.picture import Picture
from lorakit.report.table import Table
from lorakit.runs.result import Check

PACKAGE: dict[str, str] = {
    **dict.fromkeys(("trainer", "tuned", "grouped", "padded"), "peft"),
    "full": "torch",
}
"""Import name of a peer, where it is another."""


@dataclass(frozen=True)
class Setting:
    """What is measured under. layers: of the recipe's shape, None: all; length: tokens of an example."""

    against: tuple[str, ...] = ("peft",)
    rounds: int = 7
    layers: int | None = None
    batch: int = 16
    length: int = 128
    precision: str = "fp32"
    dropout: float = 0.0
    device: str = "cpu"
    recipe: tuple[str, ...] | None = None
    """Its name and overrides, for what starts processes of its own."""
    shapes: str = ""
    """batch x length, with commas between, where a question has several; empty: its own."""
    bottlenecks: tuple[int, ...] = ()
    """Widths of the adapter layers beside LoRA; empty: the question's own."""

    def plain(self) -> dict[str, Any]:
        return {"threads": torch.get_num_threads(), "torch": torch.__version__, **asdict(self)}


@dataclass(frozen=True)
class Measured:
    """Ratios of time; bytes: what each way keeps or takes; notes: what else a reader should know.

    tables and picture: the same for people. checks: what must hold whatever the times are.
    """

    ratios: Sequence[Ratio]
    bytes: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    picture: Picture | None = None
    checks: Sequence[Check] = ()

    def plain(self) -> dict[str, Any]:
        return {
            "ratios": [r.plain() for r in self.ratios],
            "bytes": dict(self.bytes),
            "notes": list(self.notes),
            "checks": [check.model_dump(mode="json") for check in self.checks],
        }


class Bench(ABC):
    """One question about time or memory; a file each."""

    name: ClassVar[str]
    peers: ClassVar[tuple[str, ...]]

    def checked(self, recipe: Recipe, setting: Setting) -> Measured:
        """`run`, when every peer is one of this benchmark's, and installed; else InputError."""
        for peer in setting.against:
            if peer not in self.peers:
                known = f"it has {', '.join(self.peers)}" if self.peers else "it has none"
                raise InputError(
                    f"bench {self.name}: no peer {peer!r} ({known}){did_you_mean(peer, self.peers)}"
                )
            if find_spec(PACKAGE.get(peer, peer)) is None:
                raise InputError(
                    f"bench {self.name}: {peer} is not installed; pip install 'lorakit[bench]'"
                )
        return self.run(recipe, setting)

    @abstractmethod
    def run(self, recipe: Recipe, setting: Setting) -> Measured:
        """Measure. InputError: the recipe, or a peer, is not for this question."""
