"""The composition root: a recipe becomes objects, objects become a run folder. One file per verb."""
