"""`lorakit bench methods`: a training step of every method W0 + dW over one of LoRA.

A method whose dW has low rank is compared with LoRA of the same inner width k, because both then
multiply the tokens with matrices of the same sizes; any other method with the recipe's LoRA.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lorakit.bench._base import Bench, Measured, Setting
from lorakit.bench._models import as_trained, bare, fast, roles_of, train_head
from lorakit.bench._rounds import measure
from lorakit.bench.step import random_batch
from lorakit.errors import ModelError
from lorakit.methods import methods
from lorakit.methods.reparam import LowRank, Reparam
from lorakit.methods.reparam._attachment import ReparamAttachment
from lorakit.methods.reparam.lora import LoRA
from lorakit.recipe.schema import Recipe
from lorakit.report.table import NOTHING, Table
from lorakit.tasks import Head
from lorakit.training.loss import loss_sum

STEPS = 100
"""Length of the run that a measured step is said to be in."""
HEADER = ("method", "k", "trained numbers", "step over LoRA", "quartiles")


class Methods(Bench):
    """Ratios of time, method by method, with the recipe's r where a method has an r."""

    name: ClassVar[str] = "methods"
    needs_lora: ClassVar[bool] = True

    def run(self, recipe: Recipe, setting: Setting) -> Measured:
        base = bare(recipe, setting.layers, setting.dropout).to(setting.device)
        models = {}
        widths = {}
        notes = []
        for name in methods.own_names():
            method = self._method(name, recipe, setting)
            if method is None:
                continue
            try:
                attachment = _attached(base, method)
            except ModelError as error:
                notes.append(f"{name} was left out: {error}")
                continue
            models[name] = attachment
            widths[name] = _inner_width(attachment)
        for k in sorted({k for k in widths.values() if k is not None}):
            lora = LoRA.model_validate(
                {**recipe.method.model_dump(), "r": k, "dropout": setting.dropout}
            )
            models[_lora(k)] = _attached(base, lora)
        return self._measured(recipe, setting, models, widths, notes)

    def _method(self, name: str, recipe: Recipe, setting: Setting) -> Reparam | None:
        """The method with the recipe's targets and r; None: it does not change weights by a sum."""
        kind = methods.get(name)
        if not issubclass(kind, Reparam):
            return None
        lora: Any = recipe.method
        fields: dict[str, Any] = {"targets": lora.targets}
        for field, value in (("r", lora.r), ("dropout", setting.dropout)):
            if field in kind.model_fields:
                fields[field] = value
        if name == "adalora":
            fields["final"] = lora.r
        return kind.model_validate(fields)

    def _measured(
        self,
        recipe: Recipe,
        setting: Setting,
        attachments: dict[str, ReparamAttachment],
        widths: dict[str, int | None],
        notes: list[str],
    ) -> Measured:
        models = {name: attachment.model for name, attachment in attachments.items()}
        batch = random_batch(recipe, next(iter(models.values())), setting)
        head = recipe.task.head
        steps = {name: _step(found, batch, head) for name, found in attachments.items()}
        with as_trained(models):
            rounds = measure(steps, setting.rounds, setting.device)
        rows = []
        ratios = []
        for name, k in widths.items():
            ratio = rounds.ratio(name, "lora" if k is None else _lora(k))
            ratios.append(ratio)
            trained = sum(p.numel() for p in _trained(attachments[name]))
            spread = f"{ratio.low:.2f} to {ratio.high:.2f}"
            shown = NOTHING if k is None else str(k)
            rows.append((name, shown, f"{trained:,}", f"{ratio.median:.2f}", spread))
        caption = (
            f"one training step of {recipe.model.name}, {setting.batch} x {setting.length} tokens, "
            "over one of LoRA with the same inner width k (without k: with the recipe's r)"
        )
        return Measured(ratios, notes=notes, tables=[Table(HEADER, tuple(rows), caption)])


def _attached(base: nn.Module, method: Reparam) -> ReparamAttachment:
    """The method on a copy of the base that shares the base's frozen parameters."""
    shared: dict[int, Any] = {id(p): p for p in base.parameters()}
    model: Any = fast(copy.deepcopy(base, shared))
    train_head(model)
    attachment = method.attach(model, roles_of(model))
    assert isinstance(attachment, ReparamAttachment)
    train_head(model)
    model.train()
    return attachment


def _step(
    attachment: ReparamAttachment, batch: Mapping[str, Tensor], head: Head
) -> Callable[[], None]:
    """A function that takes one training step with the hooks of the method.

    Its number is in the middle of a run, where AdaLoRA removes triplets.
    """
    model = attachment.model
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    step = STEPS // 2

    def take() -> None:
        attachment.before_step(step, STEPS)
        loss = loss_sum(model, dict(batch), head)
        penalty = attachment.penalty()
        if penalty is not None:
            loss = loss + penalty
        loss.backward()
        attachment.before_update()
        optimizer.step()
        attachment.after_step(step, STEPS)
        optimizer.zero_grad(set_to_none=True)

    return take


def _inner_width(attachment: ReparamAttachment) -> int | None:
    """Rows of `reads`; None where dW has no such form."""
    if not isinstance(attachment.method, LowRank):
        return None
    return len(next(iter(attachment.deltas.values())).reads())


def _trained(attachment: ReparamAttachment) -> list[nn.Parameter]:
    parameters = [p for d in attachment.deltas.values() for p in d.parameters()]
    if attachment.shared is not None:
        parameters += attachment.shared.parameters()
    return [p for p in parameters if p.requires_grad]


def _lora(k: int) -> str:
    return f"LoRA, r = {k}"


PLUGIN = Methods()
