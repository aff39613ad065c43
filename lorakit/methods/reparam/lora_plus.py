"""LoRA+: LoRA whose B learns faster than its A, by the factor `rate_of_b`.

    rate of A = train.learning_rate        rate of B = rate_of_b * train.learning_rate

Hayou et al. 2024, arXiv 2402.12354, derive from the limit of wide layers that the two rates should
differ, and recommend 2^4. Every method with A and B takes it as `rate_of_b`; here 16 is the
default.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lorakit.methods.reparam import Ranked


class LoRAPlus(Ranked):
    """LoRA with two learning rates."""

    name: Literal["lora_plus"] = "lora_plus"
    rate_of_b: float = Field(default=16.0, gt=0, le=1e4)
    """Learning rate of B as a multiple of train.learning_rate."""


PLUGIN = LoRAPlus
