"""Table 7 of the LoRA paper next to our norms of the same kind."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.analysis._sites import three_digits
from lorakit.analysis.amplification import Amplification
from lorakit.report.table import NOTHING, Table

PRINTED = {
    4: {"onto_delta": 0.32, "onto_base": 21.67, "onto_random": 0.02, "delta": 6.91},
    64: {"onto_delta": 1.90, "onto_base": 37.71, "onto_random": 0.33, "delta": 3.57},
}
"""r -> norms of query in layer 48 of GPT-3."""
BASE_NORM = 61.95
NAMES = {
    "onto_delta": "‖UᵀWVᵀ‖, U and V of ΔW",
    "onto_base": "of W",
    "onto_random": "of a random matrix",
    "base": "‖W‖",
    "delta": "‖ΔW‖",
    "factor": "‖ΔW‖ / the first",
}


def table_7(found: Sequence[Amplification], base: str) -> Table:
    """A column of the paper and one of ours for each rank. found: of one site each."""
    columns: list[tuple[str, list[str]]] = [("norm", list(NAMES.values()))]
    for one in found:
        printed = {**PRINTED.get(one.r, {}), "base": BASE_NORM}
        if one.r in PRINTED:
            printed["factor"] = printed["delta"] / printed["onto_delta"]
            shown = [three_digits(printed[name]) for name in NAMES]
            columns.append((f"paper, r={one.r}", shown))
        ours = [getattr(one, name) for name in NAMES]
        shown = [NOTHING if value is None else three_digits(value) for value in ours]
        columns.append((f"ours, r={one.r}", shown))
    caption = (
        f"Table 7: query of layer 48 of 96 in GPT-3 175B; ours: {found[0].site} of {base}; "
        "nothing is compared"
    )
    return Table.of(columns, caption)
