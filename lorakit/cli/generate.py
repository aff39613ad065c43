"""`lorakit generate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.evaluate import AnyBase, BaseModel, Seed, Task
from lorakit.cli.output import Json, Overrides, TrustRemoteCode, begin, give
from lorakit.cli.visible import show


@app.command()
def generate(
    path: Annotated[
        str, typer.Argument(help="A run folder, an adapter folder, a hub id, or a merged model.")
    ],
    overrides: Overrides = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt, as the task has it; may be given again.")
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="A file: a prompt per line, or JSONL with `prompt`.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The first examples of this split of the task.")
    ] = None,
    limit: Annotated[int, typer.Option(help="How many of the split.", min=1)] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Write the answers to this file too, as JSONL.")
    ] = None,
    task: Task = None,
    model: BaseModel = None,
    seed: Seed = None,
    any_base: AnyBase = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Show what the model writes: to prompts, a file of them, or examples. `decode.beams=4` and the like apply."""
    begin()
    from lorakit.cli.progress import Progress
    from lorakit.report.page import sample
    from lorakit.runs.folder import write_lines
    from lorakit.verbs.generate import generate_texts, read_prompts

    prompts = [*(prompt or []), *(read_prompts(inputs) if inputs else [])]
    answers = generate_texts(
        path, prompts, split, limit, task, model, seed, overrides or [], any_base, Progress()
    )
    lines = [answer.line() for answer in answers]
    if out is not None:
        write_lines(out, lines)
    if as_json:
        give({"path": path, "answers": lines}, True)
        return
    for line in lines:
        shown = sample(line)
        show(shown["input"].strip())
        show(
            f"  -> {shown['prediction']}"
            + ("" if line.get("ended", True) else " [cut at decode.max_new_tokens]")
        )
        for reference in shown["references"] if line.get("references") else ():
            show(f"     {reference}")
