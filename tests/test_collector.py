"""Garbage collection of the command line."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from lorakit import collector
from lorakit.bases.load import load
from lorakit.collector import THRESHOLDS
from lorakit.recipe.schema import Model

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


@pytest.fixture
def no_collections():
    """Only those that lorakit asks for."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(("large", "freed"), [(1, True), (2**40, False)])
def test_a_dropped_model_is_freed_before_another_is_loaded(
    large, freed, monkeypatch, no_collections
):
    """Three seeds had more than one base in memory."""
    monkeypatch.setattr(collector, "LARGE_BYTES", large)
    base = load(Model(name="lorakit:tiny_encoder"), "classification", ["no", "yes"])
    dropped = weakref.ref(base.model)
    base.model.__dict__["itself"] = base.model  # a cycle, as hooks and attachments make one
    del base
    load(Model(name="lorakit:tiny_encoder"), "classification", ["no", "yes"])
    assert (dropped() is None) == freed
