"""`lorakit bench latency`: the time that a method adds to a forward pass (the paper's Table 1).

Figure 5 of the paper has the same question for more shapes. The variants are:

base                   the model itself
base, again            a copy of it: the difference between two equal models on this machine
merged                 LoRA in the weights: the modules of the base, and so its time
unmerged               LoRA on its layers
Adapter-H, Adapter-L   adapter layers, which cannot be merged
"""

from __future__ import annotations

import copy
import math
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lorakit.bases.base import DTYPES
from lorakit.bench._base import Bench, Measured, Setting
from lorakit.bench._models import bare, roles_of
from lorakit.bench._rounds import Ratio, Rounds, measure
from lorakit.bench.step import random_batch
from lorakit.errors import InputError
from lorakit.methods import Method, methods
from lorakit.methods.reparam.lora import LoRA
from lorakit.nn.logits import last_logits
from lorakit.recipe.schema import Recipe
from lorakit.report.heat import Scale, heat_map
from lorakit.report.picture import Picture
from lorakit.report.table import NOTHING, Table
from lorakit.runs.result import Check
from lorakit.tasks import Head

ADAPTERS = {"Adapter-L": "adapter_l", "Adapter-H": "adapter_h"}
BASE, AGAIN, MERGED, UNMERGED = "base", "base, again", "LoRA, merged", "LoRA, unmerged"
TABLE_1 = {(32, 512): 0.5e6, (16, 256): 11e6, (1, 128): 11e6}
"""(batch, length) -> parameters of the adapters, in GPT-2 medium."""
PUBLISHED = {
    (32, 512): {BASE: "1449.4 ms", MERGED: "0", "Adapter-L": "+2.2 %", "Adapter-H": "+3.0 %"},
    (16, 256): {BASE: "338.0 ms", MERGED: "0", "Adapter-L": "+5.0 %", "Adapter-H": "+8.4 %"},
    (1, 128): {BASE: "19.8 ms", MERGED: "0", "Adapter-L": "+20.7 %", "Adapter-H": "+30.3 %"},
}
GRIDS = {
    "table1": ("32x512,16x256,1x128", ()),
    "figure5": (
        ",".join(f"{b}x{n}" for n in (128, 256, 512) for b in (1, 2, 4, 8, 16, 32)),
        (10, 100, 250),
    ),
}
LAYERS, WIDTH = 24, 1024
"""GPT-2 medium, the model of the published numbers."""
LEAST_SECONDS = 0.1
"""A pass that takes less time is repeated within its turn."""

Shape = tuple[int, int]


class Latency(Bench):
    """Slow-downs of a forward pass without gradients, in the plain model of transformers.

    A causal model computes the logits of the last position, as at the start of an answer.
    """

    name = "latency"
    peers = ()

    def run(self, recipe: Recipe, setting: Setting) -> Measured:
        if not isinstance(recipe.method, LoRA):
            raise InputError(
                f"bench latency measures lora, and the recipe's method is {recipe.method.name}"
            )
        named, bottlenecks = GRIDS.get(setting.shapes or "table1", (setting.shapes, ()))
        shapes, bottlenecks = read_shapes(named), setting.bottlenecks or bottlenecks
        models = _Models(recipe, setting)
        _refuse_too_long(shapes, models.base.config, recipe.model.name)
        ratios: dict[tuple[str, Shape], Ratio] = {}
        seconds: dict[Shape, float] = {}
        checks = [plain_again(models.merged, models.base)]
        for shape in shapes:
            rounds = _measured(models.at(shape, bottlenecks), recipe, setting, shape)
            seconds[shape] = statistics.median(rounds.seconds[BASE])
            checks.append(no_slower(rounds, shape))
            ratios |= {
                (way, shape): rounds.ratio(way, BASE) for way in rounds.seconds if way != BASE
            }
        title = _title(recipe, setting, models.base.config)
        return Measured(
            [ratio.named("x".join(map(str, shape))) for (_, shape), ratio in ratios.items()],
            notes=models.notes,
            tables=[_table(ratios, seconds, title, bool(bottlenecks))],
            picture=_heat_map(ratios, title),
            checks=checks,
        )


def _refuse_too_long(shapes: Sequence[Shape], config: Any, model: str) -> None:
    longest = max(length for _, length in shapes)
    limit = getattr(config, "max_position_embeddings", None)
    if limit and longest > limit:
        raise InputError(f"--shapes: {longest} tokens, and {model} takes {limit} at most")


class _Models:
    """The variants, made when they are needed.

    All but the merged model and the copy share the frozen weights.
    """

    def __init__(self, recipe: Recipe, setting: Setting):
        self.dtype = DTYPES[setting.precision]
        self.method = recipe.method
        self.base: Any = bare(recipe, setting.layers, 0.0).to(setting.device, self.dtype).eval()
        self.roles = roles_of(self.base)
        self.merged = self._merged()
        again = copy.deepcopy(self.base)
        self.ways = {
            BASE: self.base,
            AGAIN: again,
            MERGED: self.merged,
            UNMERGED: self._with(self.method),
        }
        self.notes: list[str] = []

    def at(self, shape: Shape, bottlenecks: Sequence[int]) -> Mapping[str, nn.Module]:
        """variant -> model; without bottlenecks one adapter each, with Table 1's number of
        parameters."""
        found = {way: self.ways[way] for way in (BASE, AGAIN, MERGED, UNMERGED)}
        for label, name in ADAPTERS.items():
            for width in bottlenecks or (self._wide(name, TABLE_1.get(shape, TABLE_1[1, 128])),):
                way = f"{label} {width}"
                if way not in self.ways:
                    self.ways[way] = self._with(_adapter(name, width))
                    count = _trained(self.ways[way])
                    self.notes.append(
                        f"{label}, bottleneck {width}: {count:,} parameters in "
                        f"{self._layers} layers"
                    )
                found[way if bottlenecks else label] = self.ways[way]
        return found

    @property
    def _layers(self) -> int:
        return self.base.config.num_hidden_layers

    def _wide(self, name: str, theta: float) -> int:
        """The bottleneck whose share of the layers' weights is that of theta in GPT-2 medium."""
        wanted = theta * self._layers * self.base.config.hidden_size**2 / (LAYERS * WIDTH**2)
        one, two = (_trained(self._with(_adapter(name, width))) for width in (1, 2))
        return max(1, round((wanted - one) / (two - one)) + 1)

    def _with(self, method: Method) -> nn.Module:
        model = copy.deepcopy(self.base, {id(p): p for p in self.base.parameters()})
        return method.attach(model, self.roles).model.to(self.dtype).eval()

    def _merged(self) -> nn.Module:
        attachment = self.method.attach(copy.deepcopy(self.base), self.roles)
        with torch.no_grad():
            for parameter in attachment.trained().values():
                # a B of zeros would change no weight
                parameter.normal_(std=0.02)
        attachment.merge()
        return attachment.model.eval()


def _adapter(name: str, width: int) -> Method:
    method: Any = methods.get(name)
    return method(r=width)


def _trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def read_shapes(text: str) -> list[Shape]:
    """(batch, length) of each shape such as `32x512`. InputError: another form."""
    parts = [part.strip() for part in text.split(",")]
    shapes: list[Shape] = []
    for part in parts:
        if not re.fullmatch(r"[1-9]\d{0,5}x[1-9]\d{0,5}", part):
            grids = ", ".join(GRIDS)
            raise InputError(
                f"--shapes: {part!r} is neither BATCHxLENGTH, such as 16x256, nor a grid ({grids})"
            )
        batch, length = part.split("x")
        shapes.append((int(batch), int(length)))
    return list(dict.fromkeys(shapes))


@torch.inference_mode()
def _measured(
    models: Mapping[str, nn.Module], recipe: Recipe, setting: Setting, shape: Shape
) -> Rounds:
    one = Setting(batch=shape[0], length=shape[1], device=setting.device)
    batch = {k: v for k, v in random_batch(recipe, models[BASE], one).items() if k != "labels"}
    causal = recipe.task.head is Head.CAUSAL

    def passes(model: nn.Module, count: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(count):
                _ = last_logits(model, batch, 1) if causal else model(**batch)

        return run

    passes(models[BASE], 1)()
    begin = time.perf_counter()
    passes(models[BASE], 1)()
    count = max(1, round(LEAST_SECONDS / (time.perf_counter() - begin)))
    found = measure(
        {way: passes(model, count) for way, model in models.items()}, setting.rounds, setting.device
    )
    return Rounds(
        {way: [value / count for value in values] for way, values in found.seconds.items()}
    )


def plain_again(merged: nn.Module, base: nn.Module) -> Check:
    """Whether a merged model has the modules, names, shapes and hooks of its base.

    Then nothing in it can be slower.
    """

    def outline(model: nn.Module) -> list[tuple[Any, ...]]:
        modules = [
            (name, type(m), len(m._forward_hooks) + len(m._forward_pre_hooks), sorted(vars(m)))
            for name, m in model.named_modules()
        ]
        return [
            *modules,
            *((name, p.shape, p.stride(), p.dtype) for name, p in model.named_parameters()),
        ]

    left = [
        str(one[0])
        for one, other in zip(outline(merged), outline(base), strict=False)
        if one != other
    ]
    passed = outline(merged) == outline(base)
    note = "the base's modules, parameters and hooks"
    if not passed:
        note += f"; not so: {', '.join(left[:3])}"
    return Check(name="merged is plain", passed=passed, note=note)


def no_slower(rounds: Rounds, shape: Shape) -> Check:
    """Whether the merged model is as fast as its base.

    It is not if it is slower in more rounds than by chance (sign test, p < 0.01, which needs seven
    rounds), and by more than a copy of the base is in a quarter of the rounds.
    """
    merged, again = rounds.ratio(MERGED, BASE), rounds.ratio(AGAIN, BASE)
    slower = sum(a > b for a, b in zip(rounds.seconds[MERGED], rounds.seconds[BASE], strict=True))
    p = (
        sum(math.comb(merged.rounds, k) for k in range(slower, merged.rounds + 1))
        / 2**merged.rounds
    )
    limit = max(1.0, again.high)
    return Check(
        name=f"merged no slower, {shape[0]}x{shape[1]}",
        passed=p >= 0.01 or merged.median <= limit,
        value=merged.median,
        tolerance=limit,
        note=f"median of merged / base; slower in {slower} of {merged.rounds} rounds; tolerance: "
        "1, or the upper quartile of a copy of the base over it",
    )


def _title(recipe: Recipe, setting: Setting, config: Any) -> str:
    device = f"CPU, {torch.get_num_threads()} threads"
    if setting.device == "cuda":
        device = torch.cuda.get_device_name()
    layers = f"{config.num_hidden_layers} layers of width {config.hidden_size}"
    return f"One forward pass, {recipe.model.name}: {layers}, {setting.precision}, {device}"


def _table(
    ratios: Mapping[tuple[str, Shape], Ratio],
    seconds: Mapping[Shape, float],
    title: str,
    widths_given: bool,
) -> Table:
    """The measured numbers, with those of Table 1 where it has the shape and adapter size."""
    columns = [(shape, {} if widths_given else PUBLISHED.get(shape, {})) for shape in seconds]
    header, base = ["slow-down"], [BASE]
    rows = {way: [way] for way, _ in ratios}
    for shape, known in columns:
        header.append(f"{shape[0]}x{shape[1]}")
        base.append(f"{1000 * seconds[shape]:,.1f} ms")
        if known:
            header.append("published")
            base.append(known[BASE])
        for way, row in rows.items():
            ratio = ratios[way, shape]
            row.append(
                f"{_percent(ratio.median)} ({_percent(ratio.low)} to {_percent(ratio.high)})"
            )
            if known:
                row.append(known.get(way, NOTHING))
    caption = title
    if any(known for _, known in columns):
        caption += (
            "; published: Hu et al., Table 1, GPT-2 medium on a Quadro RTX8000, another device"
        )
    return Table(tuple(header), tuple(map(tuple, [base, *rows.values()])), caption)


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def _heat_map(ratios: Mapping[tuple[str, Shape], Ratio], title: str) -> Picture:
    """Variants by shapes, in the form of Figure 5."""
    cells = {
        (way, f"{batch}x{length}"): 100 * (ratio.median - 1)
        for (way, (batch, length)), ratio in ratios.items()
    }
    scale = Scale("Oranges", low=0, high=max(10.0, *cells.values()), form="+.1f")
    return heat_map(cells, ("batch x tokens", ""), "slow-down, per cent", title, scale)


PLUGIN = Latency()
