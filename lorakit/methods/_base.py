"""The contract of a method: its configuration is its schema, `attach` puts it on a model and returns an `Attachment`.

A method file is imported to check a recipe, before torch is; so it imports `lorakit.nn` inside `attach`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, ClassVar

from lorakit.config import Config
from lorakit.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from lorakit.nn.select import Roles, Site


class Method(Config, ABC):
    """What is trained, and with which numbers. Subclasses are final, one per file."""

    name: str
    freezes_base: ClassVar[bool] = False
    """Nothing that the checkpoint holds is trained, so that it may be kept in half precision."""
    merges: ClassVar[bool] = True
    """What is trained can become part of the base's weights; False: `why_unmergeable` says why it never can."""

    @property
    def added_tokens(self) -> int:
        """How many tokens of its own the method puts into every row that the model reads."""
        return 0

    @abstractmethod
    def attach(
        self, model: nn.Module, roles: Roles, newly_initialised: Collection[str] = ()
    ) -> Attachment:
        """Prepare `model` for training in place.

        roles: where the architecture keeps W_q, W_v and the rest (`lorakit.nn.select.Roles`).
        newly_initialised: names of parameters that the checkpoint did not hold; every method trains and saves them.
        """

    def parameter_groups(self, trained: Mapping[str, nn.Parameter]) -> list[dict] | None:
        """Optimizer groups of this method's own (LoRA+, say); None: the recipe's weight decay decides.

        Each is a dict with `params`, a list of parameters, and may have `weight_decay`, `betas`, `eps`, and a learning
        rate of its own: `lr_ratio`, times train.learning_rate, or `lr`, the rate itself. Both are the rate at its
        height: warm-up and schedule scale it as they do the recipe's. Every trained parameter is in one group.
        """
        return None


class Attachment(ABC):
    """A method on a model: what it trains, how that is saved, loaded and folded in."""

    model: nn.Module
    method: Method
    newly_initialised: frozenset[str]
    sites: list[Site]
    """Where the method put something of its own; empty for a method that trains what is already there."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything that was trained, by the name under which `load_state` takes it back: detached, on the CPU."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put a `state()` back. Strict: a name that is missing, left over or of another shape is an AdapterError."""

    @abstractmethod
    def merge(self) -> None:
        """Fold what was trained into the base weights, for good: afterwards the model is a plain one.

        The sum is formed in float32 and rounded once to the weight's own dtype.
        """

    def detach(self) -> None:
        """Take the method off: the base is what it was before `attach`, with the newly initialised
        parameters as they are now, and another method can be attached.

        ModelError: the method does not support it, or what was trained is merged.
        """
        raise ModelError(f"{self.method.name} cannot be detached; load the base model again")

    def why_unmergeable(self) -> str | None:
        """The reason why `merge` would refuse, to be known before anything is trained; None: it would not."""
        return None

    @abstractmethod
    def off(self) -> AbstractContextManager[None]:
        """Inside, the model computes as if the method had never been attached (the newly initialised head stays)."""

    def folded(self) -> AbstractContextManager[None]:
        """Inside, the model computes the same from merged weights, if the method has any: faster to generate with."""
        return nullcontext()

    @abstractmethod
    def delta_norms(self) -> dict[str, float]:
        """Site or parameter -> relative size of its change, ||dW||_F / ||W||_F (||dW||_F where W is zero)."""

    def trained(self) -> dict[str, nn.Parameter]:
        """Every parameter that the optimizer updates, under its name in the model."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}
