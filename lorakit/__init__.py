"""lorakit: fine-tune with LoRA from recipes, with the evidence.

The names below are the Python API (docs/python.md). They are imported on first use, so that `import
lorakit` is fast.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if sys.platform == "win32":
    raise ImportError(
        "lorakit does not run on Windows: it needs POSIX signals and file locks; "
        "use Linux, or WSL 2"
    )

if TYPE_CHECKING:
    from lorakit.api import (
        Adapters,
        LoadedModel,
        Run,
        attach,
        combine,
        evaluate,
        export,
        generate,
        list_methods,
        load,
        load_adapter,
        make_method,
        merge,
        open_run,
        read_recipe,
        rebase,
        save_adapter,
        score,
        train,
    )

__version__ = "0.1.0"

__all__ = [
    "Adapters",
    "LoadedModel",
    "Run",
    "__version__",
    "attach",
    "combine",
    "evaluate",
    "export",
    "generate",
    "list_methods",
    "load",
    "load_adapter",
    "make_method",
    "merge",
    "open_run",
    "read_recipe",
    "rebase",
    "save_adapter",
    "score",
    "train",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("lorakit.api"), name)
    raise AttributeError(f"module 'lorakit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
