"""The moment at which a peer's script has imported its libraries, and nothing of lorakit yet.

lorakit's modules only read the recipe and the data for it, so importing them is not its work. Its
own libraries are imported before this module, and lorakit's modules after it.
"""

from __future__ import annotations

import time

LIBRARIES_S = time.process_time()
"""Processor seconds of the process until then."""
