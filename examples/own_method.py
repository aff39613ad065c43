"""Your own method: one trained gain per output of a frozen layer, in one file.

    y = W x + b + g * (W x)        g (out) starts at zero; W and b are frozen

So dW = diag(g) W, which can be folded into W: the merged model is a plain one. A recipe can name
the method (`method: {name: gain}`) once an installed package registers the class by an entry point:

    [project.entry-points."lorakit.methods"]
    gain = "my_package.own_method:Gain"

    python examples/own_method.py
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

import lorakit
from lorakit.methods import Attachment
from lorakit.methods.reparam import Dense, MethodDelta, Shape, Site

BASE = str(files("lorakit") / "assets" / "tiny_encoder")


class Gain(Dense):
    """One gain per output. The fields of this class are what a recipe can set: `targets` and
    `dropout`, which every such method has."""

    name: Literal["gain"] = "gain"

    def tensors(self, site: Site) -> dict[str, Shape]:
        """What trains, and what an adapter holds, for one weight."""
        out, _in = site.shape
        return {"gain": (out,)}

    def begin(self, d: MethodDelta) -> None:
        """First values: zeros, as every tensor is before."""

    def change(self, d: MethodDelta) -> Tensor:
        """dW (out, in). Saving, loading, merging, folding and switching off follow from it."""
        return d.gain[:, None] * d.weight.to(d.gain.dtype)


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
