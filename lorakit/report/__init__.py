"""Reports: the tables of results, and the page of a run."""
