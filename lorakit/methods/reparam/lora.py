r"""LoRA: a frozen weight W0 and a trained change dW of low rank (Hu et al. 2021, arXiv 2106.09685).

    h = W0 x + dW dropout(x)        dW = (alpha / r) B A

W0 (out, in) is the pretrained weight. A (r, in) starts at random and B (out, r) at zero, so dW = 0
at the start; r is the rank and alpha the numerator of the scale (section 4.1). It trains
r (in + out) numbers per site. In a fused weight each role has its own A and B, as in the reference
code (`MergedLinear`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from lorakit.config import Config
from lorakit.errors import ModelError
from lorakit.methods._base import Attachment, Method
from lorakit.methods._state import read_parameters, write_parameters

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lorakit.nn.select import Roles, Site


class Target(Config):
    """A target with numbers of its own."""

    match: str
    """A role, a module name, a glob, a `re:` regex or all-linear (see docs: targets)."""
    r: int | None = Field(default=None, ge=1)
    alpha: float | None = Field(default=None, gt=0, le=1e6)


class LoRA(Method):
    """Low-rank adaptation of linear layers."""

    name: Literal["lora"] = "lora"
    freezes_base: ClassVar[bool] = True
    targets: tuple[str | Target, ...] = Field(
        default=("query", "value"), min_length=1, strict=False
    )
    """Which weights: the paper adapts query and value."""
    r: int = Field(default=8, ge=1)
    """Rank of dW."""
    alpha: float = Field(default=16, gt=0, le=1e6)
    """The product B A is scaled by alpha / r."""
    budget: int | None = Field(default=None, ge=1)
    """Largest number of parameters to train: r is then the largest rank that fits, the same for all
    targets, and alpha / r stays what it is here. The log says how many are left over."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of the input of A; W0 reads x without dropout."""
    init: Literal["kaiming", "gaussian"] = "kaiming"
    """How A starts. kaiming: U(-1/sqrt(in), 1/sqrt(in)), as in the reference code; gaussian:
    N(0, sigma^2), as in the paper's Figure 1, with PEFT's sigma = 1/r (the paper prints none)."""

    @field_validator("targets", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_rank(self) -> LoRA:
        if self.budget is not None and (
            own := [t.match for t in self.targets if isinstance(t, Target)]
        ):
            raise ValueError(
                f"budget chooses r and alpha, and the target {own[0]} has its own; leave one out"
            )
        return self

    def within_budget(self, sites: Sequence[Site]) -> LoRA:
        """The same method with the r that `budget` gives on these sites.

        ModelError: the budget is smaller than a rank of 1 takes.
        """
        if self.budget is None:
            return self
        each = sum(sum(site.shape) for site in sites)
        r = self.budget // each
        if r < 1:
            raise ModelError(
                f"method.budget is {self.budget:,}, and a rank of 1 on these {len(sites)} sites "
                f"takes {each:,}: raise it, or choose fewer targets"
            )
        used = f"{r * each:,} parameters and leaves {self.budget - r * each:,}"
        log.info("budget %s: r = %d on %d sites takes %s", f"{self.budget:,}", r, len(sites), used)
        return self.model_copy(update={"r": r, "alpha": self.alpha * r / self.r, "budget": None})

    def numbers(self, target: str) -> tuple[int, float]:
        """(r, alpha) for the sites that `target` chose."""
        for entry in self.targets:
            if isinstance(entry, Target) and entry.match == target:
                return entry.r or self.r, entry.alpha or self.alpha
        return self.r, self.alpha

    def attach(
        self, model: nn.Module, roles: Roles, newly_initialised: Collection[str] = ()
    ) -> LoRAAttachment:
        from lorakit.nn.select import select

        patterns = [t if isinstance(t, str) else t.match for t in self.targets]
        sites = select(model, patterns, roles, skip=newly_initialised)
        method = self.within_budget(sites)
        if wide := [site for site in sites if method.numbers(site.target)[0] > min(site.shape)]:
            r, shape = method.numbers(wide[0].target)[0], " x ".join(map(str, wide[0].shape))
            log.warning(
                "%s is %s: a rank of %d is no more than one of %d",
                wide[0].name,
                shape,
                r,
                min(wide[0].shape),
            )
        return LoRAAttachment(model, method, sites, frozenset(newly_initialised), roles)


class LoRAAttachment(Attachment):
    """LoRA on a model: A and B on each site; they and the newly initialised head train."""

    method: LoRA

    def __init__(
        self,
        model: nn.Module,
        method: LoRA,
        sites: list[Site],
        newly_initialised: frozenset[str],
        roles: Roles,
    ):
        from lorakit.methods.reparam._lowrank import LowRankDelta
        from lorakit.nn.freeze import train_only
        from lorakit.nn.surgery import CHILD, put

        self.model = model
        self.method = method
        self.sites = sites
        self.deltas: dict[str, LowRankDelta] = {}
        # on their layers, in the weights inside `folded`, in the weights for good, or detached
        self.place: Literal["on", "folded", "merged", "off"] = "on"
        if taken := [site.path for site in sites if hasattr(site.module, CHILD)]:
            raise ModelError(
                f"{taken[0]} has a delta already; merge or detach it before another is attached"
            )
        for site in sites:
            r, alpha = method.numbers(site.target)
            self.deltas[site.name] = LowRankDelta(site, r, alpha, method.dropout, method.init)
            put(site, self.deltas[site.name])
        self._share_projections(roles)
        own = [name for name, _ in model.named_parameters()]
        # a tied parameter has one name here
        self.newly_initialised = newly_initialised & set(own)
        deltas = {name for name in own if f".{CHILD}." in name}
        train_only(model, self.newly_initialised | deltas)

    def _share_projections(self, roles: Roles) -> None:
        """Deltas that read one input, as W_q and W_v of a layer do, project it together."""
        from lorakit.nn.lowrank import Projection
        from lorakit.nn.select import by_input

        for together in by_input(self.sites, roles):
            deltas = [self.deltas[site.name] for site in together]
            projection = Projection(deltas, self.method.dropout)
            for part, delta in enumerate(deltas):
                delta.share(projection, part)

    def _saved(self) -> dict[str, nn.Parameter]:
        """`<site>.A` and `<site>.B`, whatever the modules are called, and the new head."""
        named = {
            f"{name}.{letter}": p
            for name, d in self.deltas.items()
            for letter, p in d.named_parameters()
        }
        head = {name: self.model.get_parameter(name) for name in sorted(self.newly_initialised)}
        return {**named, **head}

    def state(self) -> dict[str, Tensor]:
        return read_parameters(self._saved())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._must_be("on", "load_state")
        write_parameters(self._saved(), state)

    def merge(self) -> None:
        """As `Attachment.merge`; again, it does nothing. ModelError: detached, or in `folded`."""
        from lorakit.nn.surgery import fold

        if self.place == "merged":
            return
        self._must_be("on", "merge")
        if why := self.why_unmergeable():
            raise ModelError(why)
        if rounded := self._quantized():
            raise ModelError(
                f"{rounded[0]} is quantized: load the model dequantized, and merge into that"
            )
        for site in self.sites:
            fold(site, self.deltas[site.name])
        self._take_off("merged")

    def why_unmergeable(self) -> str | None:
        for path, names in self._tied().items():
            return (
                f"{path} shares its weight ({' = '.join(names)}): folding the delta in would "
                "change both. Leave this layer out of method.targets, or untie it "
                "(model.config.tie_word_embeddings=false)."
            )
        return None

    def _quantized(self) -> list[str]:
        from lorakit.nn.linear import is_quantized

        return [site.path for site in self.sites if is_quantized(site.module)]

    def _tied(self) -> dict[str, list[str]]:
        """Path of each site whose weight has several names -> those names."""
        from lorakit.nn.freeze import tied

        found = tied(self.model)
        paths: dict[str, list[str]] = {}
        for site in self.sites:
            weight: Any = site.module.weight
            if weight in found:
                paths[site.path] = found[weight]
        return paths

    @contextmanager
    def folded(self) -> Iterator[None]:
        """As `Attachment.folded`; it does nothing for deltas that are merged or detached, or on a
        weight that is tied or quantized."""
        from lorakit.nn.surgery import folded_in

        if self.place != "on" or self._tied() or self._quantized():
            yield
            return
        with folded_in(self.sites, list(self.deltas.values())):
            self.place = "folded"
            try:
                yield
            finally:
                self.place = "on"

    def detach(self) -> None:
        """Remove every delta: the model computes as the base did, with the trained head.

        A second call does nothing. ModelError: merged, so that the base is gone, or in `folded`.
        """
        if self.place != "off":
            self._must_be("on", "detach")
            self._take_off("off")

    def _take_off(self, place: Literal["merged", "off"]) -> None:
        from lorakit.nn.surgery import take_off

        for site in self.sites:
            take_off(site)
        self.place = place

    def _must_be(self, wanted: str, what: str) -> None:
        said = {
            "folded": "its deltas are folded into the weights for a while; leave `folded` first",
            "merged": "its deltas were merged into the weights for good; load the base model again",
            "off": "its deltas were detached from the model; attach them again",
        }
        if self.place != wanted:
            raise ModelError(f"{what}: {said[self.place]}")

    @contextmanager
    def off(self) -> Iterator[None]:
        """As `Attachment.off`; detached, it is off already. ModelError: merged, or in `folded`."""
        from lorakit.nn.surgery import switched_off

        if self.place != "off":
            self._must_be("on", "off")
        with switched_off(list(self.deltas.values())):
            yield

    def delta_norms(self) -> dict[str, float]:
        from lorakit.nn.linear import dense_weight

        norms = {}
        for site in self.sites:
            weight = dense_weight(site.module).detach()
            base = weight[site.index].float().norm().item()
            norms[site.name] = self.deltas[site.name].matrix().norm().item() / (base or 1.0)
        return norms


PLUGIN = LoRA
