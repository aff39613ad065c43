"""Your own method: one trained gain per output of a frozen layer, in one file.

    y = W x + b + g * (W x)        g (out) starts at zero; W and b are frozen

So dW = diag(g) W, which can be folded into W: the merged model is a plain one. A recipe can name
the method (`method: {name: gain}`) once an installed package registers the class by an entry point:

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
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

import lorakit
from lorakit.errors import AdapterError
from lorakit.methods import Attachment, Method
from lorakit.nn.freeze import train_only
from lorakit.nn.linear import weight_of
from lorakit.nn.select import Roles, Site, select
from lorakit.nn.surgery import Delta, fold, put, switched_off, take_off

BASE = str(files("lorakit") / "assets" / "tiny_encoder")


class Gain(Method):
    """The fields of this class are what a recipe can set."""

    name: Literal["gain"] = "gain"
    targets: tuple[str, ...] = Field(default=("query", "value"), strict=False)
    """strict=False: JSON, in which adapters record it, has lists and no tuples."""

    def attach(
        self, model: nn.Module, roles: Roles, newly_initialised: Collection[str] = ()
    ) -> GainAttachment:
        return GainAttachment(model, self, roles, newly_initialised)


class GainDelta(Delta):
    """dW = diag(gain) W, with one gain per output, zero at the start."""

    def __init__(self, site: Site):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(site.shape[0]))
        self.site = site

    @property
    def weight(self) -> Tensor:
        return weight_of(self.site.module)[self.site.index]

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        return y + self.gain * nn.functional.linear(x, self.weight)

    def matrix(self) -> Tensor:
        return self.gain[:, None] * self.weight.float()


class GainAttachment(Attachment):
    """Gains on linear layers; they and the newly initialised head train."""

    def __init__(self, model: nn.Module, method: Gain, roles: Roles, head: Collection[str]):
        self.model, self.method = model, method
        self.newly_initialised = frozenset(head)
        self.sites = select(model, method.targets, roles, skip=head)
        self.deltas = {site.name: GainDelta(site) for site in self.sites}
        for site in self.sites:
            # where lorakit looks for what a method trains: the child `delta` of the layer
            put(site, self.deltas[site.name])
        own = {name for name, _ in model.named_parameters() if ".delta." in name}
        train_only(model, own | self.newly_initialised)

    def state(self) -> dict[str, Tensor]:
        return {name: p.detach().cpu().clone() for name, p in self.trained().items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if wrong := self.trained().keys() ^ state.keys():
            raise AdapterError(f"missing or unknown: {', '.join(sorted(wrong))}")
        for name, parameter in self.trained().items():
            parameter.copy_(state[name])

    def merge(self) -> None:
        for site in self.sites:
            fold(site, self.deltas[site.name])
        self.detach()

    def detach(self) -> None:
        for site in self.sites:
            take_off(site)

    @contextmanager
    def off(self) -> Iterator[None]:
        with switched_off(list(self.deltas.values())):
            yield

    @torch.no_grad()
    def delta_norms(self) -> dict[str, float]:
        found = self.deltas.items()
        return {name: float(d.matrix().norm() / d.weight.norm()) for name, d in found}


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
