"""Draws docs/pictures/gallery: what the tensors of each method are, and what change they can make.

Every reparametrisation, initialisation and combination rule is run on one layer of 32 outputs and
48 inputs. Nothing in a picture is drawn by hand, so that it cannot differ from the code.

    python scripts/draw_gallery.py            # draw what does not have a picture
    python scripts/draw_gallery.py NAME ...   # draw these again
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from lorakit.combining import rules
from lorakit.combining._base import FactorRule, MatrixRule
from lorakit.errors import LorakitError
from lorakit.inits import inits
from lorakit.methods import methods
from lorakit.methods.reparam import Reparam
from lorakit.methods.reparam._attachment import ReparamAttachment

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "gallery"
OUT, IN = 32, 48
STEPS = 400
TRAINED = "#d9822b"
FROZEN = "#9aa5b1"
BASE = "#e4e7eb"
CHANGE_COLOURS = "RdBu_r"
matplotlib.rcParams |= {
    "svg.fonttype": "none",
    "svg.hashsalt": "lorakit",
    "font.size": 8,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


class OneLayer(nn.Module):
    """A model with one weight W0 (32, 48)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(IN, OUT, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def band() -> Tensor:
    """The change that every method is asked for: a soft diagonal band, whose rank is full."""
    rows = torch.arange(OUT).unsqueeze(1) / OUT
    columns = torch.arange(IN) / IN
    return 0.5 * torch.exp(-(((rows - columns) / 0.12) ** 2))


def fit(attachment: ReparamAttachment, model: nn.Module, target: Tensor) -> None:
    """Train towards W0 + target on all unit vectors, with the hooks of the method."""
    x = torch.eye(IN)
    with attachment.off():
        wanted = model(x) + target.T
    names = {id(p): name for name, p in attachment.trained().items()}
    groups = [
        {"params": [p], "lr": 0.02 * attachment.method.rate_of(names[id(p)])}
        for p in attachment.trained().values()
    ]
    optimizer = torch.optim.Adam(groups)
    if attachment.method.batches_to_see:
        batch = lambda: ((model(x) - wanted) ** 2).mean()  # noqa: E731
        attachment.see([[batch]] * attachment.method.batches_to_see)
    model.train()
    for step in range(STEPS):
        attachment.before_step(step, STEPS)
        loss = ((model(x) - wanted) ** 2).sum()
        penalty = attachment.penalty()
        if penalty is not None:
            loss = loss + penalty
        optimizer.zero_grad()
        loss.backward()
        attachment.before_update()
        optimizer.step()
        attachment.after_step(step, STEPS)
    model.eval()


def attached(method: Reparam) -> tuple[ReparamAttachment, nn.Module]:
    model = OneLayer()
    attachment = method.attach(model, {})
    return attachment, model


def tiny_method(name: str, **fields: Any) -> Reparam:
    cls = methods.get(name)
    method = cls.model_validate({"name": name, **cls.tiny, **fields, "targets": ["layer"]})
    assert isinstance(method, Reparam)
    return method


def draw_method(method: Reparam, path: Path) -> None:
    """Three parts: the tensors to scale, dW after training, and its singular values."""
    attachment, model = attached(method)
    fit(attachment, model, band())
    (delta,) = attachment.deltas.values()
    change = delta.matrix()
    tensors, heat, spectrum = _three()
    _draw_tensors(tensors, _parameters(attachment))
    _draw_matrix(heat, change, f"dW after {STEPS} steps")
    _draw_spectrum(spectrum, {"wanted": band(), "dW": change})
    _save(path)


def _parameters(attachment: ReparamAttachment) -> dict[str, nn.Parameter]:
    (delta,) = attachment.deltas.values()
    shared = {} if attachment.shared is None else dict(attachment.shared.named_parameters())
    return {**dict(delta.named_parameters()), **{f"shared {n}": p for n, p in shared.items()}}


_FIGURE: list[Figure] = []


def _three(widths: Sequence[float] = (1.5, 1, 1)) -> list[Axes]:
    figure = Figure(figsize=(7.2, 2.3), layout="constrained")
    _FIGURE[:] = [figure]
    return list(figure.subplots(1, 3, width_ratios=widths))


def _draw_tensors(axes: Axes, parameters: Mapping[str, nn.Parameter]) -> None:
    """W0 and each tensor, to scale; a vector is drawn as a column, and of a tensor with more
    dimensions those after the first next to each other."""
    boxes = [("W0", torch.Size((OUT, IN)), BASE)]
    for name, parameter in parameters.items():
        boxes.append((name, parameter.shape, TRAINED if parameter.requires_grad else FROZEN))
    x, y, tallest = 0.0, 0.0, 0.0
    for name, shape, colour in boxes:
        height, width = _two(shape)
        if x and x + width > 130:
            x, y, tallest = 0.0, y + tallest + 12, 0.0
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="none"))
        axes.text(x, y - 1.5, f"{name}  {'x'.join(map(str, shape))}", fontsize=6, va="bottom")
        x += max(width, 5.0 * (len(name) + 5) / 2) + 6
        tallest = max(tallest, height)
    axes.set(xlim=(-2, 150), ylim=(max(y + tallest, 60) + 2, -10), aspect="equal")
    axes.set_title("tensors: trained orange, frozen grey")
    axes.axis("off")


def _two(shape: torch.Size) -> tuple[int, int]:
    if len(shape) == 0:
        return 1, 1
    if len(shape) == 1:
        return shape[0], 1
    return shape[0], shape[1:].numel()


def _draw_matrix(axes: Axes, matrix: Tensor, title: str) -> None:
    limit = matrix.abs().max().item() or 1.0
    axes.imshow(matrix.numpy(), cmap=CHANGE_COLOURS, vmin=-limit, vmax=limit)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title)


def _draw_spectrum(axes: Axes, matrices: Mapping[str, Tensor]) -> None:
    """The first is grey: what the second is compared with."""
    colours = {next(iter(matrices)): FROZEN}
    for name, matrix in matrices.items():
        values = torch.linalg.svdvals(matrix.float())
        axes.plot(
            range(1, len(values) + 1),
            values.numpy(),
            marker=".",
            markersize=3,
            linewidth=1,
            label=name,
            color=colours.get(name, TRAINED),
        )
    axes.set_ylim(bottom=0)
    axes.set_title("singular values")
    axes.legend(frameon=False)


def draw_init(name: str, path: Path) -> None:
    """A, B, and the singular values of W0 and of the product that the init begins with."""
    method = tiny_method("lora", r=8, init=name)
    attachment, model = attached(method)
    x = torch.randn(64, IN)
    if method.batches_to_see:
        wanted = x @ (model.get_parameter("layer.weight").detach() + band()).T
        batch = lambda: ((model(x) - wanted) ** 2).mean()  # noqa: E731
        attachment.see([[batch]] * method.batches_to_see)
    (delta,) = attachment.deltas.values()
    a, b, spectrum = _three((1, 1, 1))
    _draw_matrix(a, delta.A.detach(), f"A at the start, {'x'.join(map(str, delta.A.shape))}")
    _draw_matrix(b, delta.B.detach(), f"B at the start, {'x'.join(map(str, delta.B.shape))}")
    product = (delta.B @ delta.A).detach() * delta.scale
    _draw_spectrum(spectrum, {"W0": delta.weight, "s B A": product})
    _save(path)


def draw_rule(name: str, path: Path) -> None:
    """Two changes, and what the rule makes of them."""
    rule = rules.get(name).model_validate({"name": name})
    torch.manual_seed(0)
    factors = []
    for target in (band(), band().flip(1) - 0.2):
        u, s, v = torch.linalg.svd(target, full_matrices=False)
        factors.append((u[:, :6] * s[:6], v[:6]))
    changes = [b @ a for b, a in factors]
    generator = torch.Generator().manual_seed(0)
    weights = [0.5, 0.5] if rule.averages else [1.0, 1.0]
    if isinstance(rule, FactorRule):
        b, a = rule.combine(factors, weights)
        combined = b @ a
    else:
        assert isinstance(rule, MatrixRule)
        combined = rule.combine(changes, weights, generator)
    axes = _three((1, 1, 1))
    _draw_matrix(axes[0], changes[0], "first adapter")
    _draw_matrix(axes[1], changes[1], "second adapter")
    _draw_matrix(axes[2], combined, "combined")
    _save(path)


def _save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _FIGURE[0].savefig(path, format="svg", metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*", help="method, initialisation or rule to draw again")
    wanted = parser.parse_args().name
    jobs = {f"methods/{n}": n for n in methods.own_names() if issubclass(methods.get(n), Reparam)}
    jobs |= {f"inits/{n}": n for n in inits.names()}
    jobs |= {f"combining/{n}": n for n in rules.names()}
    if unknown := [name for name in wanted if name not in jobs.values()]:
        parser.error(f"nothing is drawn for {', '.join(unknown)}")
    failed = 0
    for job, name in jobs.items():
        path = FOLDER / f"{job}.svg"
        if (wanted and name not in wanted) or (not wanted and path.is_file()):
            continue
        try:
            if job.startswith("methods/"):
                draw_method(tiny_method(name), path)
            elif job.startswith("inits/"):
                draw_init(name, path)
            else:
                draw_rule(name, path)
        except LorakitError as error:
            failed = 1
            print(f"{name}: {error}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
