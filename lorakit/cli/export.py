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
    from lorakit.verbs.export import Exported, Lowered


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
    rank: Annotated[
        int | None,
        Option(
            help="Write the adapter at this rank: of a Matryoshka run the one that was trained, of "
            "any other the best approximation, whose error is printed. With --as lora.",
            min=1,
            metavar="N",
        ),
    ] = None,
    approximate: Annotated[
        bool,
        Option(
            "--approximate", help="With --rank: the best approximation, of a Matryoshka run too."
        ),
    ] = False,
    pointed: PointerOptions,
    as_json: Json = False,
) -> None:
    """Write an adapter in the format that another tool reads.

    Any method whose change has a low rank becomes a plain LoRA. The written
    adapter is read back, and its logits are compared.
    """
    from lorakit.adapters.intruders import Damping
    from lorakit.adapters.lower_rank import AskedRank
    from lorakit.errors import InputError
    from lorakit.verbs.export import export as run_export

    if approximate and rank is None:
        raise InputError("--approximate says how a lower rank is made; give --rank N too")
    asked = None if rank is None else AskedRank(rank, approximate)
    damping = None if damp_intruders is None else Damping(damp_intruders)
    found = run_export(pointed.pointer(), form.value, to, examples, damping, asked)
    _print(found)
    give(found.plain(), as_json)


def _print(found: Exported) -> None:
    rank = "" if found.largest_rank is None else f", largest rank {found.largest_rank}"
    say(
        f"{found.adapter}: {found.method} written as {found.form} to {found.folder} "
        f"({found.parameters:,} numbers{rank})"
    )
    if found.lower_rank is not None:
        _print_lower(found.lower_rank)
    if found.damped is not None:
        say(f"intruder dimensions damped: {found.damped}")
    say(
        f"compared on {found.examples} examples ({found.asked}): largest logit difference "
        f"{found.max_logit_difference:.2e} (relative; allowed {found.tolerance:g})"
    )


def _print_lower(found: Lowered) -> None:
    change = f"it changes a logit by {found.logit_difference:.2e} (relative)"
    error = f"{100 * found.error:.1f} % (at most {100 * found.worst:.1f} %, of {found.worst_site})"
    if not found.trained:
        say(f"rank {found.rank}: the error of dW is {error}; {change}")
        return
    say(f"rank {found.rank}: the adapter of this rank that was trained; {change}")
    say(
        f"the best approximation of the entire change at this rank has an error of {error}; "
        "--approximate writes that one: score both"
    )
