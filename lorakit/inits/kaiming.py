"""kaiming: A ~ U(-1/sqrt(in), 1/sqrt(in)) and B = 0, as in the LoRA paper's reference code."""

from __future__ import annotations

import math
from typing import Literal

from lorakit.inits import Init, MethodDelta


class Kaiming(Init):
    """The start of `nn.Linear`."""

    name: Literal["kaiming"] = "kaiming"

    def begin(self, d: MethodDelta) -> None:
        from torch import nn

        nn.init.kaiming_uniform_(d.A, a=math.sqrt(5))
        d.B.zero_()


PLUGIN = Kaiming
