"""Results as values, tables and a page."""
