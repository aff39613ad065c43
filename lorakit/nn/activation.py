r"""The tanh form of GELU (Hendrycks and Gimpel 2016) in one operation, where transformers writes it out in eight.

    0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))

GPT-2, T5 and Phi have it under names such as `gelu_new`. Three of the steps keep a result for the backward pass, each
as wide as the feed-forward layer: more than all else that a GPT-2 block keeps. One operation keeps x alone.
"""

from __future__ import annotations

from torch import nn

WRITTEN_OUT = ("NewGELUActivation", "FastGELUActivation", "AccurateGELUActivation")
"""transformers' classes of this function, by their names: importing them costs a second."""


def use_fast_activations(model: nn.Module) -> None:
    """Put torch's own in their place; it has no parameters, and no name changes."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ in WRITTEN_OUT:
                setattr(module, name, nn.GELU(approximate="tanh").train(child.training))
