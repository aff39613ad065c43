"""`lorakit export`"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from lorakit.cli import app
from lorakit.cli.options import Json, PointerOptions, grouped
from lorakit.cli.output import give, say

if TYPE_CHECKING:
    from lorakit.verbs.export import Exported, Stored


class Form(str, Enum):
    lora = "lora"
    peft = "peft"
    native = "native"


@app.command(epilog="Example: lorakit export runs/my-run --as lora --to adapter")
@grouped
def export(
    *,
    form: Annotated[
        Form,
        Option(
            "--as",
            help="lora: plain LoRA, for PEFT and servers of adapters. peft: PEFT's own type of the "
            "method. native: lorakit's file.",
        ),
    ] = Form.lora,
    to: Annotated[
        Path, Option(help="Folder of the adapter; empty, or not there yet.", metavar="DIR")
    ],
    examples: Annotated[
        int, Option(help="Number of validation examples to compare on.", min=1, metavar="N")
    ] = 64,
    damp_intruders: Annotated[
        float | None,
        Option(
            help="Keep this share of each intruder dimension of W + dW (the paper's lambda, such "
            "as 0.75); it lessens forgetting, and changes the outputs. With --as lora.",
            min=0,
            max=1,
        ),
    ] = None,
    bits: Annotated[
        int | None,
        Option(
            help="Store each number of the adapter in this many bits (task vector quantization); "
            "lorakit reads the file, PEFT does not.",
            min=2,
            max=8,
            metavar="N",
        ),
    ] = None,
    pointed: PointerOptions,
    as_json: Json = False,
) -> None:
    """Write an adapter in the format that another tool reads.

    Any method whose change has a low rank becomes a plain LoRA. The written
    adapter is read back, and its logits are compared.
    """
    from lorakit.adapters.intruders import Damping
    from lorakit.verbs.export import ExportPlan
    from lorakit.verbs.export import export as run_export

    damping = None if damp_intruders is None else Damping(damp_intruders)
    found = run_export(pointed.pointer(), form.value, to, ExportPlan(examples, damping, bits))
    _print(found)
    give(found.plain(), as_json)


def _print(found: Exported) -> None:
    rank = "" if found.largest_rank is None else f", largest rank {found.largest_rank}"
    say(
        f"{found.adapter}: {found.method} written as {found.form} to {found.folder} "
        f"({found.parameters:,} numbers{rank})"
    )
    if found.damped is not None:
        say(f"intruder dimensions damped: {found.damped}")
    allowed = f"allowed {found.tolerance:g}"
    if found.stored is not None:
        _print_stored(found.stored)
        allowed = "no limit, because few bits change it"
    say(
        f"compared on {found.examples} examples ({found.asked}): largest logit difference "
        f"{found.max_logit_difference:.2e} (relative; {allowed})"
    )


def _print_stored(stored: Stored) -> None:
    times = stored.bytes_before / stored.bytes_after
    say(
        f"{stored.numbers:,} numbers in {stored.bits} bits each: {stored.bytes_before:,} bytes -> "
        f"{stored.bytes_after:,} ({times:.1f} times smaller)"
    )
    say(
        f"largest error of a number {stored.largest_error:.2e} (at most {stored.bound:.2e}); of "
        f"all together {stored.relative_error:.2%}"
    )
    scores = ""
    for name, (before, after) in (stored.scores or {}).items():
        scores += f"; {name} {before:.2f} -> {after:.2f}"
    say(f"equal predictions {stored.equal_predictions:.1%}{scores}")
