"""The command line: parses, calls, prints, nothing else. Verbs import what they need when they run."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer

from lorakit.children import STOPPED, UNEXPECTED, Ending, tell_parent, wait_for_first_failure
from lorakit.cli.visible import complain, finish_streams, ready_streams, show
from lorakit.errors import ChildError, InputError, LorakitError, Stopped

app = typer.Typer(
    name="lorakit",
    help="Fine-tune with LoRA from recipes, with evidence that it worked.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
NO_PLACE = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.ENAMETOOLONG)
recipes_app = typer.Typer(
    help="The recipes that ship with lorakit.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(recipes_app, name="recipes")


@app.callback(invoke_without_command=True)
def _root(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks, and what the library logs.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True)
    ] = False,
) -> None:
    if version:
        import lorakit

        show(lorakit.__version__)
        raise typer.Exit
    if debug:
        os.environ["LORAKIT_DEBUG"] = "1"


def add_verbs() -> None:
    """Each verb's file puts it on `app`."""
    from lorakit.cli import (  # noqa: F401
        analyze,
        bench,
        check,
        compare,
        env,
        evaluate,
        generate,
        importing,
        launch_command,
        merge,
        prepare,
        recipes,
        report,
        reproduce,
        score,
        selftest,
        study,
        train,
    )


INTERRUPTED = 130
"""Exit code of a Ctrl-C: 128 + SIGINT."""


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 a run or a check failed, 2 a mistake in what was given."""
    ready_streams()
    add_verbs()
    if "--debug" in sys.argv:  # wherever it stands on the line
        sys.argv.remove("--debug")
        os.environ["LORAKIT_DEBUG"] = "1"
    try:
        _refuse_bytes(sys.argv[1:])
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer 0.29 makes an exit code of a Ctrl-C
            code = _end(Ending(STOPPED, "stopped", INTERRUPTED))
    except typer.Exit as end:
        code = end.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = _end(Ending(STOPPED, "stopped", INTERRUPTED))
    except Exception as error:
        ending = _explain(error)
        traced = os.environ.get("LORAKIT_DEBUG") == "1"
        if traced and not isinstance(error, (Stopped, ChildError)):
            tell_parent(ending)
            raise
        code = _end(ending)
        wait_for_first_failure(ending)
    sys.exit(finish_streams(code if isinstance(code, int) else 0))


def _refuse_bytes(words: list[str]) -> None:
    """A run keeps its paths in files of UTF-8, and libraries that save into a folder take no other name."""
    for word in words:
        if not word.isascii() and any("\ud800" <= char <= "\udfff" for char in word):
            raise InputError(f"{word} holds a byte that is not UTF-8; rename the file or folder")


def _explain(error: Any) -> Ending:
    if hasattr(error, "format_message"):  # a wrong option or verb, in typer's own words
        context = getattr(error, "ctx", None)
        usage = f"{context.get_usage()}\n" if context is not None else ""
        message = f"{error.format_message()}\n{usage}".rstrip()
        return Ending(InputError.code, message, InputError.exit_code)
    if isinstance(error, LorakitError):
        return Ending(error.code, str(error), error.exit_code)
    if isinstance(error, OSError) and error.errno in NO_PLACE:
        advice = "make room, or choose another place"
        if error.errno == errno.ENAMETOOLONG:
            advice = "give a shorter one"
        name = str(error.filename or "a file")
        message = f"{name[:200]}: {error.strerror}; {advice}"
        return Ending(InputError.code, message, InputError.exit_code)
    advice = "lorakit did not expect this; run again with --debug to see where."
    return Ending(UNEXPECTED, f"{type(error).__name__}: {error}\n{advice}", 1)


def _end(ending: Ending) -> int:
    """Report the ending to the parent, show it where no other process does, and return the exit code."""
    if tell_parent(ending):
        kind = "" if ending.code == STOPPED else "error: "
        complain(f"{kind}{ending.message}")
    return ending.exit_code
