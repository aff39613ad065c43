"""One run on several machines: the line that each of them runs, or the script that Slurm takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lorakit.shell import Code, join, label

PORT = 29500

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
{resources}#SBATCH --time={minutes}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --signal=TERM@120
# Two minutes before the end every process is told to stop; the same script, queued again, goes on.
# Add what your cluster wants: --partition, --account, --cpus-per-task.

export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export SRUN_CPUS_PER_TASK=${{SLURM_CPUS_PER_TASK:-1}}  # srun does not take it over by itself
{exports}srun --kill-on-bad-exit=1 {command}
"""


@dataclass(frozen=True)
class Machines:
    """How many machines, and processes on each: one per GPU, or with `cpu` on the cores."""

    nodes: int
    processes_per_node: int
    cpu: bool = False

    @property
    def processes(self) -> int:
        return self.nodes * self.processes_per_node

    def torchrun(self, name: str, arguments: Sequence[str], address: str) -> str:
        """The line, which is the same on every machine. address: HOST or HOST:PORT of any one of them."""
        endpoint = address if ":" in address else f"{address}:{PORT}"
        line = join(self._command(f"lorakit-{label(name)}", endpoint, arguments))
        return f"{' '.join(self._exports())} {line}".strip()

    def script(self, name: str, arguments: Sequence[str], minutes: int) -> str:
        """For sbatch. Slurm says which machines there are; the first one is where they meet."""
        gpus = f"#SBATCH --gpus-per-node={self.processes_per_node}\n"
        cores = f"#SBATCH --cpus-per-task={self.processes_per_node}\n"
        # the two that Slurm fills in are code by what they are, not by how they look; all else is quoted
        command = self._command(
            Code('"$SLURM_JOB_ID"'), Code('"$MASTER_ADDR:$MASTER_PORT"'), arguments
        )
        return SCRIPT.format(
            name=label(name),
            nodes=self.nodes,
            resources=cores if self.cpu else gpus,
            minutes=minutes,
            exports="".join(f"export {line}\n" for line in self._exports()),
            command=join(command),
        )

    def _command(self, job: str, endpoint: str, arguments: Sequence[str]) -> list[str]:
        return [
            "torchrun",
            f"--nnodes={self.nodes}",
            f"--nproc-per-node={self.processes_per_node}",
            "--rdzv-backend=c10d",
            "--rdzv-endpoint",
            endpoint,
            "--rdzv-id",
            job,
            "-m",
            "lorakit",
            "train",
            *arguments,
        ]

    def _exports(self) -> list[str]:
        return ["ACCELERATE_USE_CPU=true"] if self.cpu else []
