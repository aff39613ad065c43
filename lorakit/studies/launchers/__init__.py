"""Launchers: where the runs of a study run, one file each."""

from __future__ import annotations

from lorakit.registry import Registry
from lorakit.studies.launchers._base import Alive, JobTask, Launcher, Record, Training

launchers: Registry[Launcher] = Registry("lorakit.studies.launchers", "launcher")

__all__ = ["Alive", "JobTask", "Launcher", "Record", "Training", "launchers"]
