"""Pooled features and labels -> what they tell of the photos: folds, suspicious labels, what more photos would bring.

Pure functions of arrays; `pronk.training.surveys` gives them the features of a folder.
"""
