"""Held adapters: attached once and taken off, so that several share the weights of one base."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.adapters.attach import attach_adapter
from lorakit.adapters.files import AdapterFile
from lorakit.methods import Attachment
from lorakit.methods.subset._subset import SubsetAttachment
from lorakit.nn.overlay import ModelState, Overlay, replace_parameter
from lorakit.nn.select import Roles


@dataclass(frozen=True)
class HeldAdapter:
    """An adapter that was attached to a model, and what it changed there.

    The attachment's methods work while the overlay is on the model.
    """

    attachment: Attachment
    overlay: Overlay

    @property
    def memory_bytes(self) -> int:
        """The size of every tensor that the adapter has and the base does not."""
        return sum(tensor.nbytes for tensor in self.overlay.tensors())


def hold_adapter(
    file: AdapterFile,
    model: nn.Module,
    roles: Roles,
    newly_initialised: Collection[str],
    check_base: bool = True,
) -> HeldAdapter:
    """The adapter, attached as `attach_adapter` does and taken off again.

    Parameters of the base that the adapter trains (a head, biases) get a copy that is the
    adapter's, so the base's numbers stay. The head may have another shape than the base's, such as
    another number of labels. AdapterError: as for `attach_adapter`; the model is unchanged.
    """
    before = ModelState(model)
    base = dict(model.named_parameters())

    def own_parameters(attachment: Attachment, state: Mapping[str, Tensor]) -> None:
        for name, parameter in attachment.trained().items():
            if parameter is base.get(name):
                shape = parameter.shape
                if name in attachment.newly_initialised and name in state:
                    shape = state[name].shape
                replace_parameter(model, parameter, _own(parameter, shape))

    with _same_settings(model):
        attachment = attach_adapter(
            file, model, roles, newly_initialised, check_base, own_parameters
        )
    overlay = before.overlay()
    overlay.take_off()
    before.restore_parameters()
    for tensor in overlay.tensors():
        tensor.requires_grad_(False)
    if isinstance(attachment, SubsetAttachment):
        # its copies of the first values: the base has them
        attachment.before = {name: base[name].detach() for name in attachment.before}
    return HeldAdapter(attachment, overlay)


def _own(parameter: nn.Parameter, shape: torch.Size) -> nn.Parameter:
    """Another parameter in the dtype and on the device of one, which is about to be loaded."""
    return nn.Parameter(torch.zeros(shape, dtype=parameter.dtype, device=parameter.device))


@contextmanager
def _same_settings(model: Any) -> Iterator[None]:
    """Afterwards the configuration says again whether the base's embeddings are tied.

    An adapter that holds one of two tied weights unties them, and its overlay has the other weight.
    """
    configs = [model.config, model.config.get_text_config()]
    flags = [getattr(config, "tie_word_embeddings", None) for config in configs]
    try:
        yield
    finally:
        for config, flag in zip(configs, flags, strict=True):
            if flag is not None:
                config.tie_word_embeddings = flag
