r"""DoRA: the magnitude and the direction of each output row of the weight train apart.

    W' = m (W0 + s B A) / ||W0 + s B A||        norms by output row, m = ||W0|| at the start

The norm counts as a constant in the backward pass (section 4.3 of the paper).
Liu et al. 2024, arXiv 2402.09353. A (r, in), B (out, r) and m (out) train.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from lorakit.methods.reparam import PeftForm, Ranked
from lorakit.methods.reparam._magnitude import WithMagnitude


class DoRA(WithMagnitude, Ranked):
    """Weight-decomposed low-rank adaptation."""

    name: Literal["dora"] = "dora"
    is_lora: ClassVar[bool] = False
    peft: ClassVar[PeftForm | None] = PeftForm(
        type="LORA",
        tensors={"A": "lora_A.weight", "B": "lora_B.weight", "m": "lora_magnitude_vector"},
        needs={"use_dora": True},
        conv1d=True,
    )


PLUGIN = DoRA
