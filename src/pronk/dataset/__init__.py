"""A folder of photos -> a Dataset: listed, looked at, grouped and split; or findings in words."""
