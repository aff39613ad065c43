"""One file per command: a recipe or a run folder becomes objects, files and a result."""
