"""What a batch has written."""

import csv
import time


def read_csv(path):
    with path.open(newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def count_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.002)
