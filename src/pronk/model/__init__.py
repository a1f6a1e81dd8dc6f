"""The trained thing: a folder that checks itself, opened without a framework."""
