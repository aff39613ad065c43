"""lorakit: fine-tune with LoRA from recipes, with the evidence."""

from __future__ import annotations

__version__ = "0.1.0"
