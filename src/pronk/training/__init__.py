"""Dataset -> trained bundle. The only package that may import a training framework."""
