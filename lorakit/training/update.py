"""The optimizer's part of a step, watched for numbers that are not finite and for parts that do not learn."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lorakit.methods import Attachment
from lorakit.recipe.schema import Train
from lorakit.training.checkpoint import BadSteps
from lorakit.training.optim import learning_rate, set_rates
from lorakit.training.processes import Exchange
from lorakit.training.progress import Progress
from lorakit.training.refuse import (
    OVERFLOWS,
    Still,
    bad_step,
    overflowing,
    refuse_dead,
    what_is_wrong,
)
from lorakit.training.saving import Keeper

log = logging.getLogger(__name__)


class Update:
    """One step after another: clips, moves the parameters, or leaves a bad step out."""

    def __init__(
        self,
        attachment: Attachment,
        exchange: Exchange,
        settings: Train,
        run: Progress,
        keeper: Keeper,
    ):
        self.attachment, self.exchange, self.settings, self.run = (
            attachment,
            exchange,
            settings,
            run,
        )
        self.keeper, self.parameters = keeper, list(attachment.trained().values())
        # where a process holds parts, a part may be one that has no gradient
        self.still = Still(attachment, settings, run.total) if type(exchange) is Exchange else None
        self.looked = run.step > 0

    def __call__(self, sums: Tensor, ids: Sequence[str]) -> tuple[dict[str, Any], list[float]]:
        """What happened, as an event, and the rest of `sums`, which begins with the loss. TrainingError: a number that
        is not finite, or a part that does not learn."""
        rate = learning_rate(self.settings, self.run.step, self.run.total)
        set_rates(self.exchange.optimizer, rate)
        clipped = self.exchange.clip(self.parameters, self.settings.max_grad_norm or math.inf)
        # the one time that a step waits for the device: a step with a bad number must not be taken
        loss, *others, norm = torch.cat([sums, clipped.reshape(1).to(sums)]).tolist()
        scaler = self.exchange.accelerator.scaler
        if what := what_is_wrong(loss, norm, scaled=scaler is not None):
            self._leave_out(what, ids)
            return {"event": "skipped", "why": what, "examples": list(ids)}, others
        if not self.looked:
            refuse_dead(self.attachment, self.exchange.gradient)
            self.looked = True
        if self.still:
            self.still.before_step(rate)
        self.exchange.step()
        self._look(scaler, overflowed=not math.isfinite(norm))
        seen = {
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm if math.isfinite(norm) else None,
        }
        return {"event": "step", **seen}, others

    def _leave_out(self, what: str, ids: Sequence[str]) -> None:
        bad, step = self.run.bad, self.run.step + 1
        if bad.in_a_row >= self.settings.skip_bad_steps:
            raise bad_step(what, step, ids, self.keeper.advice())
        log.warning("%s at step %d: the step is left out (examples %s)", what, step, ", ".join(ids))
        self.run.bad = BadSteps(
            skipped=bad.skipped + 1, in_a_row=bad.in_a_row + 1, overflows=bad.overflows
        )
        self.exchange.drop()
        if self.exchange.accelerator.scaler is not None:
            self.exchange.accelerator.scaler.update()  # or it would think that these gradients were still to come

    def _look(self, scaler: Any, overflowed: bool) -> None:
        # accelerate's optimizer_step_was_skipped does not see it: a fused optimizer leaves the step out by itself
        overflows = self.run.bad.overflows + 1 if overflowed else 0
        self.run.bad = BadSteps(skipped=self.run.bad.skipped, overflows=overflows)
        if overflows >= OVERFLOWS:
            raise overflowing(self.run.step + 1, scaler.get_scale())
        if self.still and not overflowed:
            self.still.after_step(self.run.step)
