"""Each analysis of `lorakit.analysis` as a table and a picture: a file per question."""
