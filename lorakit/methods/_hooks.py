"""The hooks of training: what a method may do before, in and after a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor


class TrainingHooks:
    """Each does nothing unless a method overrides it, and must do the same on every process."""

    def see(self, batches: Iterable[Sequence[Callable[[], Tensor]]]) -> None:
        """Look at training data before the first step of a run that does not resume.

        batches: the micro batches of each global batch. A call runs one through the model and
        returns its loss; the sum over a global batch is the batch's mean loss.
        """

    def before_step(self, step: int, total: int) -> None:
        """Before the forward pass of step `step` (from 0) of `total`. What is random is drawn from
        the number of the step, so that processes and a resumed run agree."""

    def penalty(self) -> Tensor | None:
        """A scalar that is added to the loss of every step; None: nothing is added."""
        return None

    def before_update(self) -> None:
        """Before the optimizer's step, with the complete gradients."""

    def after_step(self, step: int, total: int) -> None:
        """After the optimizer's step, with the gradients still there."""

    def memory(self) -> dict[str, Tensor]:
        """What the hooks remember: it is in a checkpoint, and not in an adapter."""
        return {}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """Take a `memory()` back."""
