"""Folders and files: written whole or not at all, locked, named, and kept for the next time."""
