"""Garbage collection of the command line."""

from __future__ import annotations

import subprocess
import sys

from lorakit.collector import THRESHOLDS

LOOK = """
import atexit, gc, sys
atexit.register(lambda: print(gc.get_freeze_count() > 0))
from lorakit.cli import main
sys.argv = ["lorakit", "--version"]
try:
    main()
finally:
    print(gc.get_threshold())
"""


def test_the_command_line_collects_less_often_and_not_at_exit():
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    _, thresholds, frozen = done.stdout.splitlines()
    assert thresholds == str(THRESHOLDS)
    assert frozen == "True"
