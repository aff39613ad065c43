"""Your own method: one trained gain per output of a frozen layer, in one file.

    y = (1 + g) * (W x + b)        g (out) starts at zero; W and b are frozen

The gains can be folded into W and b, so that the merged model is a plain one. A recipe can name the
method (`method: {name: gain}`) once an installed package registers the class by an entry point:

    [project.entry-points."lorakit.methods"]
    gain = "my_package.own_method:Gain"

    python examples/own_method.py
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

import lorakit
from lorakit.errors import AdapterError
from lorakit.methods import Attachment, Method
from lorakit.nn.freeze import train_only
from lorakit.nn.select import Roles, select

BASE = str(files("lorakit") / "assets" / "tiny_encoder")


class Gain(Method):
    """The fields of this class are what a recipe can set."""

    name: Literal["gain"] = "gain"
    targets: tuple[str, ...] = ("query", "value")

    def attach(
        self, model: nn.Module, roles: Roles, newly_initialised: Collection[str] = ()
    ) -> GainAttachment:
        return GainAttachment(model, self, roles, newly_initialised)


class GainAttachment(Attachment):
    """Gains on `nn.Linear` layers; they and the newly initialised head train."""

    def __init__(self, model: nn.Module, method: Gain, roles: Roles, head: Collection[str]):
        self.model, self.method = model, method
        self.newly_initialised = frozenset(head)
        self.sites = select(model, method.targets, roles, skip=head)
        self.enabled = True
        self.hooks = []
        for site in self.sites:
            site.module.register_parameter("gain", nn.Parameter(torch.zeros(site.shape[0])))
            self.hooks.append(site.module.register_forward_hook(self._scale))
        train_only(model, self.newly_initialised | {f"{site.path}.gain" for site in self.sites})

    def _scale(self, layer: nn.Module, _inputs: tuple, y: Tensor) -> Tensor:
        return (1 + layer.gain) * y if self.enabled else y

    def state(self) -> dict[str, Tensor]:
        return {name: p.detach().cpu().clone() for name, p in self.trained().items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if wrong := self.trained().keys() ^ state.keys():
            raise AdapterError(f"missing or unknown: {', '.join(sorted(wrong))}")
        for name, parameter in self.trained().items():
            parameter.copy_(state[name])

    @torch.no_grad()
    def merge(self) -> None:
        for site, hook in zip(self.sites, self.hooks, strict=True):
            layer = site.module
            layer.weight *= 1 + layer.gain[:, None]
            layer.bias *= 1 + layer.gain
            del layer.gain
            hook.remove()

    @contextmanager
    def off(self) -> Iterator[None]:
        self.enabled = False
        try:
            yield
        finally:
            self.enabled = True

    @torch.no_grad()
    def delta_norms(self) -> dict[str, float]:
        norms = {}
        for site in self.sites:
            weight, gain = site.module.weight, site.module.gain
            norms[site.name] = float((gain[:, None] * weight).norm() / weight.norm())
        return norms


def attached() -> Attachment:
    """The method on the tiny base model, with a head that trains too."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        BASE, num_labels=2, dtype=torch.float32
    )
    return lorakit.attach(model.eval(), Gain(), train_also=["classifier"])


def main() -> None:
    logging.set_verbosity_error()  # transformers reports that the head is newly initialised
    logging.disable_progress_bar()
    attachment = attached()
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    batch = tokenizer(["a great film", "a dull film"], return_tensors="pt", padding=True)
    optimizer = torch.optim.AdamW(attachment.trained().values(), lr=1e-2)
    for step in range(5):
        loss = attachment.model(**batch, labels=torch.tensor([1, 0])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1}  loss {loss.item():.4f}")
    again = attached()  # on a new base, as after loading a saved state
    again.load_state(attachment.state())
    print(f"largest change: {max(again.delta_norms().values()):.4f} of its weight")
    with torch.no_grad():
        before = again.model(**batch).logits
        again.merge()
        difference = (again.model(**batch).logits - before).abs().max()
    print(f"merged: no logit differs by more than {difference:.1e}")


if __name__ == "__main__":
    main()
