"""Finding weights and changing them. Knows torch; knows no task, no recipe, no file."""
