"""Bytes -> upright RGB pixels -> the k-th view. Training and serving use this one way."""
