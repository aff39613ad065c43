"""`lorakit launch-command`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.options import Overrides, RecipeName, Runs, TrustRemoteCode
from lorakit.cli.output import console
from lorakit.cli.visible import show_exactly


@app.command("launch-command")
def launch_command(
    recipe: RecipeName,
    overrides: Overrides = None,
    nodes: Annotated[int, typer.Option(help="Machines.", min=1)] = 2,
    processes_per_node: Annotated[
        int, typer.Option("--processes-per-node", help="Processes on each: one per GPU.", min=1)
    ] = 1,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="A script for sbatch, not a line for each machine.")
    ] = False,
    address: Annotated[
        str, typer.Option(help="HOST or HOST:PORT of any one of the machines, where they meet.")
    ] = "FIRST_HOST",
    minutes: Annotated[int, typer.Option(help="For Slurm: the time limit.", min=3)] = 240,
    runs: Runs = Path("runs"),
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave GPUs alone.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Print what trains a recipe on several machines; nothing is started."""
    from lorakit.recipe.load import load_recipe
    from lorakit.studies.nodes import Machines
    from lorakit.training.plan import share

    loaded, machines = (
        load_recipe(recipe, overrides or []),
        Machines(nodes, processes_per_node, cpu),
    )
    settings = loaded.recipe.train
    share(
        settings.global_batch_size, settings.micro_batch_size, machines.processes
    )  # now, not when it is its turn
    arguments = [recipe, *(overrides or []), "--runs", str(runs), *(["--cpu"] if cpu else [])]
    arguments += ["--trust-remote-code"] if trust_remote_code else []
    name = loaded.name.replace("/", "-")
    if slurm:
        show_exactly(machines.script(name, arguments, minutes))
        return
    show_exactly(machines.torchrun(name, arguments, address) + "\n")
    console().print(
        f"run this line on each of the {nodes} machines; all of them need the folder {runs}, the base model and the "
        "data at the same paths",
        markup=False,
        soft_wrap=True,
    )
