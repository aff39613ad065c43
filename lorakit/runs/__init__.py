"""The run folder: what it holds, whether it is whole, and how it is opened again."""
