"""Measure the peak memory of a training next to the estimate of `lorakit check`.

Adds a row to results/performance/memory.json, or replaces the one of that name:

    python scripts/memory_peaks.py "MiniLM, LoRA, fp32" minilm/glue_mrpc data.path=GLUE ...

The peak is that of the entire `lorakit train`, with its evaluations and proofs (Linux, on a CPU):
as it is run, and without the gaps that blocks of many sizes leave in glibc's heap.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lorakit.bench._machine import machine

FILE = Path(__file__).resolve().parent.parent / "results" / "performance" / "memory.json"
LORAKIT = [sys.executable, "-m", "lorakit"]
WITHOUT_GAPS = {"MALLOC_MMAP_THRESHOLD_": str(2**18)}
"""Every block from this size on is mapped by itself."""


def measured(given: list[str], environment: dict[str, str]) -> int:
    """MiB at the peak of `lorakit train`."""
    with tempfile.TemporaryDirectory() as runs:
        command = [*LORAKIT, "train", *given, "--runs", runs]
        process = subprocess.Popen(command, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"lorakit train ended with {os.waitstatus_to_exitcode(status)}")
    return round(usage.ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", help="name of the row")
    parser.add_argument("recipe", nargs="+", help="recipe and its overrides")
    read = parser.parse_args()
    what, given = read.what, read.recipe
    checked = subprocess.run(
        [*LORAKIT, "check", *given, "--json"], stdout=subprocess.PIPE, check=True, text=True
    )
    estimate = json.loads(checked.stdout)["memory_mib"]
    row = {
        "what": what,
        "estimate": round(estimate["together"]),
        "gaps": round(estimate["gaps in the heap"]),
        "without_gaps": measured(given, WITHOUT_GAPS),
        "measured": measured(given, {}),
    }
    rows = json.loads(FILE.read_text(encoding="utf-8"))["rows"] if FILE.is_file() else []
    rows = [*(other for other in rows if other["what"] != what), row]
    found = {"machine": machine(), "rows": rows}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
