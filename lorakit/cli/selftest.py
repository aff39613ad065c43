"""`lorakit selftest`"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from contextlib import redirect_stdout
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.output import Json, begin, console, give

WORDS = {True: ("passed", ""), False: ("failed", "red"), None: ("not tried", "yellow")}


@app.command()
def selftest(
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave GPUs alone.")] = False,
    as_json: Json = False,
) -> None:
    """Does this machine compute what it should? Two ways to the same numbers, on tiny models, in under a minute."""
    if cpu:
        os.environ["LORAKIT_CPU"] = "1"
    start = time.perf_counter()
    begin()
    logging.getLogger("lorakit").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the temporary folder goes
    with redirect_stdout(sys.stderr):
        from lorakit.cli.screen import line
        from lorakit.runs.environment import environment
        from lorakit.selftest.checks import CHECKS
        from lorakit.selftest.run import selftest

        width = max(map(len, CHECKS))
        findings = []
        for found in selftest():
            value = (
                "" if found.value is None else f"{found.value:.2g} (at most {found.tolerance:g}): "
            )
            said = f"  {found.name:{width}}  {value}{found.note}"
            console().print(line(WORDS[found.passed], said, (f"  {found.seconds:.1f} s", "dim")))
            findings.append(found)
        made = environment()
    failed = [found.name for found in findings if found.passed is False]
    skipped = sum(found.passed is None for found in findings)
    seconds = time.perf_counter() - start
    passed = len(findings) - len(failed) - skipped
    console().print(
        f"{passed} passed, {len(failed)} failed, {skipped} not tried, in {seconds:.0f} s",
        markup=False,
    )
    give(
        {
            "passed": not failed,
            "failed": failed,
            "seconds": seconds,
            "checks": [found.plain() for found in findings],
            "environment": made,
        },
        as_json,
    )
    if failed:
        raise typer.Exit(1)
