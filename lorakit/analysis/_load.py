"""RunChanges: what a run changed, weight by weight, from its adapter and its base; without data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from lorakit.adapters.attach import attach_adapter, factors
from lorakit.adapters.files import AdapterFile
from lorakit.analysis._change import Change
from lorakit.analysis._sites import SiteFilter
from lorakit.bases.base import Base
from lorakit.bases.load import load, load_dequantized
from lorakit.bases.outline import outline
from lorakit.errors import AdapterError, InputError, ModelError
from lorakit.nn.linear import dense_weight
from lorakit.nn.select import ROLES, Site, select
from lorakit.runs.folder import is_run, is_seed
from lorakit.runs.pointer import Pointer
from lorakit.runs.source import Source, open_source


@dataclass(frozen=True)
class RunChanges:
    """dW at every site of a LoRA adapter, or in every linear layer of a fully fine-tuned model."""

    source: Source
    name: str
    method: str
    rank: int | None
    """The largest rank of the adapter; None for full fine-tuning."""
    changes: list[Change]

    @property
    def path(self) -> str:
        """The path that the user gave."""
        return self.source.path

    @property
    def label(self) -> str:
        """The name, and what was trained."""
        return f"{self.name} ({self.method if self.rank is None else f'r={self.rank}'})"

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the base's weights; None where the adapter has none (PEFT's)."""
        adapter = self.source.adapter
        return adapter.about.fingerprint if adapter and adapter.about else None

    @property
    def seed(self) -> str | None:
        """The name of the seed's folder; None for an adapter outside of a run."""
        folder = self.source.notebook.parent
        return folder.name if is_seed(folder) else None

    def facts(self) -> dict[str, object]:
        """The entry of this run in WHAT.json."""
        return {
            "path": self.path,
            "name": self.name,
            "method": self.method,
            "r": self.rank,
            "seed": self.source.why,
        }


def load_changes(
    run: Pointer, methods: Sequence[str], needs_base: bool, sites: SiteFilter
) -> RunChanges:
    """The change of every weight that passes `sites`, in float32 or as trained.

    methods: the methods that are accepted. needs_base: W is read as well; without it, the shapes of
    the base are enough for LoRA. AdapterError: another method, or another base. ModelError: the
    base is not available.
    """
    if (Path(run.path) / "config.json").is_file():
        raise AdapterError(
            f"{run.path} is a plain model, and the base that it was trained from is not known; "
            "give a run or an adapter"
        )
    source = open_source(run)
    adapter = _adapter_of(source)
    method = adapter.about.method.get("name", "") if adapter.about else "lora"
    if method not in methods:
        raise AdapterError(
            f"{run.path} was trained with {method}; this analysis is for {' and '.join(methods)}"
        )
    if method == "lora":
        changes = _lora_changes(source, run, needs_base, sites)
    else:
        changes = _full_changes(source, run, sites)
    # targets may have ranks of their own
    ranks = [len(change.factors[1]) for change in changes if change.factors is not None]
    return RunChanges(source, _name_of(adapter), method, max(ranks, default=None), changes)


def seeds_of(run: Pointer) -> list[Pointer]:
    """Every trained seed of a run. InputError: it is not a run folder, or has only one seed."""
    folder = Path(run.path)
    if not is_run(folder):
        raise InputError(
            f"{run.path} is not a run folder, so it does not have seeds to compare; "
            "give two adapters"
        )
    found = [adapter.parent for adapter in folder.glob("seed*/adapter")]
    found.sort(key=lambda seed: (len(seed.name), seed.name))  # seed2 before seed10
    if len(found) < 2:
        raise InputError(
            f"{run.path} has {len(found)} trained seed(s), and two are compared: "
            "give two runs, or train more seeds"
        )
    return [replace(run, path=str(seed)) for seed in found]


def _adapter_of(source: Source) -> AdapterFile:
    assert source.adapter is not None  # only a plain model has none, and that is refused first
    return source.adapter


def _name_of(adapter: AdapterFile) -> str:
    seed = adapter.folder.parent
    if adapter.folder.name == "adapter" and is_run(seed.parent):
        return f"{seed.parent.name} {seed.name.replace('seed', 'seed ')}"
    return adapter.folder.name


def _load_base(source: Source, run: Pointer, needs_weights: bool) -> Base:
    spec = source.model(run)
    load_it = outline
    if needs_weights:
        load_it = load_dequantized if spec.quantize else load
    try:
        return load_it(spec, source.head, source.labels)
    except ModelError as error:
        raise type(error)(
            f"{run.path}: {error} `lorakit analyze` takes it with --model."
        ) from error


def _lora_changes(
    source: Source, run: Pointer, needs_base: bool, sites: SiteFilter
) -> list[Change]:
    base = _load_base(source, run, needs_base)
    found = factors(
        _adapter_of(source),
        base.model,
        base.roles,
        base.newly_initialised,
        check_base=needs_base and not run.any_base,
    )
    chosen = {site.name for site in sites.apply([site for site, _, _ in found], run.path)}
    return [
        Change(site.name, factors=(b, a), base=_weight(site) if needs_base else None)
        for site, b, a in found
        if site.name in chosen
    ]


def _full_changes(source: Source, run: Pointer, sites: SiteFilter) -> list[Change]:
    base = _load_base(source, run, needs_weights=True)
    # a family names the parts of a fused weight; any other model is read by its linear layers
    roles = [role for role in ROLES if role in base.roles]
    every = select(base.model, roles or ["all-linear"], base.roles, skip=base.newly_initialised)
    chosen = sites.apply(every, run.path)
    # attaching overwrites the weights that full fine-tuning changed
    before = [_weight(site).clone() for site in chosen]
    attach_adapter(
        _adapter_of(source),
        base.model,
        base.roles,
        base.newly_initialised,
        check_base=not run.any_base,
    )
    return [
        Change(site.name, dense=_weight(site) - w, base=w)
        for site, w in zip(chosen, before, strict=True)
    ]


def _weight(site: Site) -> Tensor:
    """W of the site's rows, (rows, in)."""
    return dense_weight(site.module).detach()[site.index]
