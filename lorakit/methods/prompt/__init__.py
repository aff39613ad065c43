"""Tokens of a method's own in the rows of a decoder: prefixes and infixes."""
