"""What a run changed, weight by weight: its adapter beside the base, without a trainer and without data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor

from lorakit.adapters.attach import attach_adapter, factors
from lorakit.analysis._change import Change
from lorakit.bases.base import Base
from lorakit.bases.load import load, load_dequantized
from lorakit.bases.outline import outline
from lorakit.errors import AdapterError, InputError, ModelError, TargetError, did_you_mean
from lorakit.models import Model
from lorakit.nn.linear import dense_weight
from lorakit.nn.select import ROLES, SHORT, Site, select
from lorakit.report.changes import in_layer
from lorakit.runs.folder import is_run, is_seed
from lorakit.runs.pointer import Pointer
from lorakit.runs.source import Source, open_source


@dataclass(frozen=True)
class Trained:
    """One trained state: dW at every site of a LoRA adapter, or in every linear layer of a full run's blocks."""

    source: Source
    name: str
    method: str
    rank: int | None
    """The largest of the adapter's."""
    changes: list[Change]

    @property
    def label(self) -> str:
        """Its name, and what was trained."""
        return f"{self.name} ({self.method if self.rank is None else f'r={self.rank}'})"

    @property
    def base(self) -> str | None:
        """The fingerprint of the base's weights; None where the adapter has none (PEFT's)."""
        adapter = self.source.adapter
        return adapter.about.fingerprint if adapter and adapter.about else None

    @property
    def seed(self) -> str | None:
        """The name of its seed's folder; None where it is of no run."""
        folder = self.source.notebook.parent
        return folder.name if is_seed(folder) else None

    def facts(self) -> dict[str, object]:
        """As they are written down."""
        return {
            "path": self.source.path,
            "name": self.name,
            "method": self.method,
            "r": self.rank,
            "seed": self.source.why,
        }


@dataclass(frozen=True)
class Choice:
    """Which weights are looked at; None: all."""

    site: str | None = None
    """A name, a role, the end of a path or a glob."""
    layer: int | None = None

    def of(self, sites: Sequence[Site], path: str) -> list[Site]:
        """Those that are chosen. TargetError: none, with the names that there are."""
        named = [site for site in sites if self.site is None or _is_named(site, self.site)]
        found = [
            site for site in named if self.layer is None or in_layer(site.name)[0] == self.layer
        ]
        if not named:
            near = did_you_mean(
                str(self.site), {word for s in sites for word in (s.target, s.path.split(".")[-1])}
            )
            raise TargetError(
                f"--site {self.site!r}: {path} has no such weight{near} (its first: {sites[0].name})"
            )
        if not found:
            layers = sorted(
                {layer for site in named if (layer := in_layer(site.name)[0]) is not None}
            )
            raise TargetError(
                f"--layer {self.layer}: {path} has the layers {', '.join(map(str, layers))}"
            )
        return found


def _is_named(site: Site, wanted: str) -> bool:
    role = SHORT.get(wanted, wanted)
    if role in (site.part, SHORT.get(site.target, site.target)) or wanted in (site.name, site.path):
        return True
    return site.path.endswith(f".{wanted}") or any(
        fnmatchcase(site.path, p) for p in (wanted, f"*.{wanted}")
    )


def read_trained(
    path: str,
    methods: Sequence[str],
    weights: bool,
    choice: Choice,
    base: str | None = None,
    seed: int | None = None,
    any_base: bool = False,
) -> Trained:
    """The change of every chosen weight, float32 or as trained.

    methods: those that are asked about. weights: W is needed too; without it the base's shapes are enough for LoRA.
    AdapterError: another method, another base; ModelError: the base is not to be had.
    """
    if (Path(path) / "config.json").is_file():
        raise AdapterError(
            f"{path} is a plain model: what it was trained from is not known; give a run or an adapter"
        )
    source = open_source(Pointer(path, base=base, seed=seed))
    assert source.adapter is not None
    method = source.adapter.about.method.get("name", "") if source.adapter.about else "lora"
    if method not in methods:
        raise AdapterError(
            f"{path} was trained with {method}; this is asked of {' and '.join(methods)}"
        )
    read = _read_lora if method == "lora" else _read_full
    changes = read(source, _spec(source, base), weights, choice, any_base)
    ranks = [len(change.factors[1]) for change in changes if change.factors is not None]
    return Trained(source, _name(source), method, max(ranks, default=None), changes)


def seeds_of(path: str) -> list[str]:
    """The folders of a run's trained seeds, as paths; InputError where it is no run, or has one seed only."""
    folder = Path(path)
    found = sorted(folder.glob("seed*/adapter"), key=lambda p: (len(p.parent.name), p.parent.name))
    if not is_run(folder):
        raise InputError(
            f"{path} is no run folder: its seeds cannot be compared; give two adapters"
        )
    if len(found) < 2:
        raise InputError(
            f"{path} has {len(found)} trained seed(s), and two are compared: give two runs, or more seeds"
        )
    return [str(place.parent) for place in found]


def _name(source: Source) -> str:
    assert source.adapter is not None
    place = source.adapter.folder
    if place.name == "adapter" and is_run(place.parent.parent):
        return f"{place.parent.parent.name} {place.parent.name.replace('seed', 'seed ')}"
    return place.name


def _spec(source: Source, base: str | None) -> Model:
    if source.recipe is not None:
        return source.recipe.model
    assert source.adapter is not None
    return Model(name=base or source.adapter.base or "")


def _base(source: Source, spec: Model, weights: bool) -> Base:
    read = (load_dequantized if spec.quantize else load) if weights else outline
    try:
        return read(spec, source.head, source.labels)
    except ModelError as error:
        raise ModelError(f"{source.path}: {error} For `analyze`, give it with --model.") from error


def _read_lora(
    source: Source, spec: Model, weights: bool, choice: Choice, any_base: bool
) -> list[Change]:
    base = _base(source, spec, weights)
    assert source.adapter is not None
    found = factors(
        source.adapter,
        base.model,
        base.roles,
        base.newly_initialised,
        check_base=weights and not any_base,
    )
    chosen = {site.name for site in choice.of([site for site, _, _ in found], source.path)}
    return [
        Change(site.name, factors=(b, a), base=_weight(site) if weights else None)
        for site, b, a in found
        if site.name in chosen
    ]


def _read_full(
    source: Source, spec: Model, weights: bool, choice: Choice, any_base: bool
) -> list[Change]:
    base = _base(source, spec, True)
    assert source.adapter is not None
    named = [role for role in ROLES if role in base.roles]
    sites = select(base.model, named or ["all-linear"], base.roles, skip=base.newly_initialised)
    chosen = choice.of(sites, source.path)
    before = [_weight(site).clone() for site in chosen]
    attach_adapter(
        source.adapter, base.model, base.roles, base.newly_initialised, check_base=not any_base
    )
    return [
        Change(site.name, dense=_weight(site) - w, base=w)
        for site, w in zip(chosen, before, strict=True)
    ]


def _weight(site: Site) -> Tensor:
    """W of the site's rows, (rows, in)."""
    weight = dense_weight(site.module).detach()
    return weight[site.index]
