"""Bytes of a model from a stranger -> refused, or harmless to open."""
