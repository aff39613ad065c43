"""Modules in the path of a frozen model, which no weight can hold: bottleneck adapters."""
