"""lorakit: fine-tune with LoRA from recipes, with the evidence."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError(
        "lorakit does not run on Windows: it needs POSIX signals and file locks; "
        "use Linux, or WSL 2"
    )

__version__ = "0.1.0"
