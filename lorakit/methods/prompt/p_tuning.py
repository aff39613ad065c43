r"""P-tuning: trained embeddings of l_p tokens before the prompt, which a small network gives.

    (e_1 ... e_lp, prompt, answer)        e = f(z)

z (l_p, d) trains, and so does f: a perceptron of two hidden layers on each token, or a
bidirectional LSTM over the tokens with a perceptron of one hidden layer after it. The network lets
the tokens depend on each other and on the same weights, so that they train with larger steps than
free vectors; after training e is all that is needed. Liu et al. 2021, arXiv 2103.10385. As in
PEFT's code, z starts from N(0, 1), the tokens come first (`infix` puts some after the prompt) and
f may be a perceptron alone; the paper has the LSTM and places tokens by a template.

An adapter in PEFT's format holds e, and z and f for further training here.

When to use: for a decoder whose weights must not change at all, where `prefix_embedding` trains too
slowly. The tokens cost context and attention in each forward pass, and cannot be merged.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lorakit.methods.prompt import PromptAttachment, PromptForm, PromptTokens


class PTuning(PromptTokens):
    """Trained embeddings of added tokens, by way of a network."""

    name: Literal["p_tuning"] = "p_tuning"
    tiny = {"prefix": 3, "infix": 2}
    idle_unless = {"layers": ("encoder", ("lstm",)), "dropout": ("encoder", ("lstm",))}
    prefix: int = Field(default=20, ge=0, le=100_000)
    """l_p: number of tokens before the prompt."""
    infix: int = Field(default=0, ge=0, le=100_000)
    """Number of tokens between the prompt and the answer; PEFT has none there."""
    encoder: Literal["mlp", "lstm"] = "mlp"
    """The network f."""
    hidden: int | None = Field(default=None, ge=1)
    """Width of its hidden layers; None: the width d of the model."""
    layers: int = Field(default=2, ge=1)
    """Number of layers of the LSTM."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout between the layers of the LSTM."""
    peft_prompt: ClassVar[PromptForm | None] = PromptForm(
        type="P_TUNING",
        to_peft=lambda method: {
            "encoder_reparameterization_type": method.encoder.upper(),
            "encoder_hidden_size": method.hidden,
            "encoder_num_layers": method.layers,
            "encoder_dropout": method.dropout,
        },
    )

    def attachment_class(self) -> type[PromptAttachment]:
        from lorakit.methods.prompt._encoder import EncodedAttachment

        return EncodedAttachment


PLUGIN = PTuning
