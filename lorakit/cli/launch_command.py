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
    nodes: Annotated[int, typer.Option(help="Number of machines.", min=1)] = 2,
    processes_per_node: Annotated[
        int,
        typer.Option(
            "--processes-per-node", help="Number of processes on each, one per GPU.", min=1
        ),
    ] = 1,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Print a script for sbatch, not a command.")
    ] = False,
    address: Annotated[
        str, typer.Option(help="HOST or HOST:PORT of one of the machines, where they meet.")
    ] = "FIRST_HOST",
    minutes: Annotated[int, typer.Option(help="Time limit for Slurm, in minutes.", min=3)] = 240,
    runs: Runs = Path("runs"),
    cpu: Annotated[bool, typer.Option("--cpu", help="Do not use GPUs.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Print the command that trains a recipe on several machines; nothing is started.

    Example: lorakit launch-command glue_mnli --nodes 2 --processes-per-node 8 --slurm > job.sh
    """
    from lorakit.recipe.load import load_recipe
    from lorakit.studies.machines import Machines
    from lorakit.training.plan import share

    loaded = load_recipe(recipe, overrides or [])
    machines = Machines(nodes, processes_per_node, cpu)
    settings = loaded.recipe.train
    # a batch that cannot be shared is refused now, not after hours in a queue
    share(settings.global_batch_size, settings.micro_batch_size, machines.processes)
    arguments = [recipe, *(overrides or []), "--runs", str(runs)]
    if cpu:
        arguments.append("--cpu")
    if trust_remote_code:
        arguments.append("--trust-remote-code")
    name = loaded.name.replace("/", "-")
    if slurm:
        show_exactly(machines.script(name, arguments, minutes))
        return
    show_exactly(machines.torchrun(name, arguments, address) + "\n")
    console().print(
        f"run this command on each of the {nodes} machines; all of them need the folder {runs}, "
        "the base model and the data at the same paths",
        markup=False,
        soft_wrap=True,
    )
