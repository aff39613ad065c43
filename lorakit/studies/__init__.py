"""Many runs: grids over recipes, tables of the paper, and where they run."""
