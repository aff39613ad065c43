"""Where the runs of a study run: one file per launcher."""

from __future__ import annotations

from lorakit.registry import Registry
from lorakit.studies.launchers._base import Launcher, Record, Task

launchers: Registry[Launcher] = Registry("lorakit.studies.launchers", "launcher")

__all__ = ["Launcher", "Record", "Task", "launchers"]
