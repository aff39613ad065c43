r"""EDoRA: DoRA's magnitude over LoRA-XS' small square.

    W' = m (W0 + s B R A) / ||W0 + s B R A||        A = S_r V_r^T, B = U_r, both frozen

R (r, r) and m (out) train, s = alpha / r. R starts at zero here, as in `lora_xs`. Nasiri and
Garraghan 2025, arXiv 2501.12067.
"""

from __future__ import annotations

from typing import Literal

from lorakit.methods.reparam._magnitude import WithMagnitude
from lorakit.methods.reparam.lora_xs import LoRAXS


class EDoRA(WithMagnitude, LoRAXS):
    """A trained norm and a small square between frozen singular vectors."""

    name: Literal["edora"] = "edora"  # type: ignore[assignment]
    tiny = {"r": 4}


PLUGIN = EDoRA
