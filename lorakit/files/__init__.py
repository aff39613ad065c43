"""Readers of data files: tables, JSON, XML, compressed or not.

Data files come from elsewhere, so every reader checks what it reads, limits how much it reads, and
raises a DataError that names the file and the line.
"""
