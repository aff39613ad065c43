"""A recipe is validated before torch is imported: importing a plug-in must be fast."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "sklearn",
    "scipy",
    "sacrebleu",
    "pyarrow",
    "pandas",
    "numpy",
}
SCRIPT = """
import json, sys
from lorakit.{package} import {package}
for name in {package}.names():
    {package}.get(name)
print(json.dumps([len({package}.names()), sorted(sys.modules)]))
"""


@pytest.mark.parametrize("package", ["tasks", "metrics", "methods", "inits", "optimizers"])
def test_importing_every_plugin_is_light(package):
    script = SCRIPT.format(package=package)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    count, modules = json.loads(done.stdout)
    assert count >= 4
    assert not HEAVY & set(modules)


def test_a_task_is_made_without_heavy_imports():
    script = (
        "import sys; from lorakit.tasks import tasks\n"
        "t = tasks.get('glue')(name='glue/mrpc'); t.primary, t.labels, t.eval_splits\n"
        "tasks.get('text')(train='a.csv', validation='b.csv').primary\n"
        f"print(sorted(set(sys.modules) & {HEAVY!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
