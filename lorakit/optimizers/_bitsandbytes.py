"""AdamW of bitsandbytes: its moments as 8-bit numbers, or in pages that move off the GPU."""

from __future__ import annotations

from typing import ClassVar

from lorakit.optimizers import Held, Optimizer
from lorakit.optimizers._base import COUNT

SMALLEST = 4096
"""bitsandbytes keeps the moments of smaller parameters in float32."""
BLOCK = 256
"""Numbers that share a scale; also the length of the table of the 256 values."""


class BitsAndBytes(Optimizer):
    """What its optimizers share."""

    is_adam: ClassVar[bool] = True
    needs: ClassVar[tuple[str, str] | None] = ("bitsandbytes", "quantized")

    def held(self, shape: tuple[int, ...]) -> dict[str, Held]:
        return {"step": COUNT, "state1": Held(shape, "float32"), "state2": Held(shape, "float32")}


def held_in_8_bits(shape: tuple[int, ...]) -> dict[str, Held]:
    numbers = 1
    for size in shape:
        numbers *= size
    if numbers < SMALLEST:
        return {"step": COUNT, "state1": Held(shape, "float32"), "state2": Held(shape, "float32")}
    held = {"step": COUNT}
    for i in (1, 2):
        held[f"state{i}"] = Held(shape, "uint8")
        held[f"qmap{i}"] = Held((BLOCK,), "float32")
        held[f"absmax{i}"] = Held((-(-numbers // BLOCK),), "float32")
    return held
