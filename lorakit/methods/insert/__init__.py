"""Bottleneck adapters: trained modules in the path of a frozen model, which cannot be merged."""
