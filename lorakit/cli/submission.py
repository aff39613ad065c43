"""`lorakit submission`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from lorakit.cli import app
from lorakit.cli.options import Json
from lorakit.cli.output import give, say


@app.command(epilog="Example: lorakit submission runs --to glue.zip")
def submission(
    places: Annotated[
        list[Path], Argument(help="Files that `lorakit eval --split test` wrote, or folders.")
    ],
    to: Annotated[Path, Option(help="Zip file to write.", metavar="FILE")],
    as_json: Json = False,
) -> None:
    """Pack GLUE predictions into the zip that gluebenchmark.com takes."""
    from lorakit.verbs.submission import submission as pack

    found = pack(places, to)
    for name, path in found.files.items():
        say(f"{name}: {path}")
    for name, answer in found.filled.items():
        say(f"{name}: not predicted; every row is the most frequent answer, {answer}")
    say(f"written: {found.path}")
    give(asdict(found), as_json)
