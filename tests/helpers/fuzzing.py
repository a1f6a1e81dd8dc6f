"""Damage good pictures at random and decode them: run as a program, so that a crash is seen from outside.

python -m helpers.fuzzing FIRST COUNT      prints a JSON object; mutant N is the same in every run
"""

import faulthandler
import json
import sys
from collections import Counter

import numpy as np
import psutil

from helpers.bad_files import exif
from helpers.pictures import draw_picture, encode
from pronk.errors import ImageError
from pronk.photos.decoding import load_pixels

SIZE = (48, 36)
HANG = 5.0  # seconds for one mutant
WARM_UP = 200
EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0", b"\xff\xff", b"\x7f\xff", b"\0\0\0\0", b"\xff\xff\xff\xff")


def make_seeds() -> list[bytes]:
    """Make 20 small pictures in 8 formats."""
    picture, other = draw_picture("circle", 1, SIZE), draw_picture("square", 2, SIZE)
    frames = {"save_all": True, "append_images": [other]}
    jpegs = ({}, {"subsampling": 0}, {"progressive": True}, {"exif": exif(6)}, {"restart_marker_blocks": 2})
    return [
        *(encode(picture, "JPEG", **options) for options in jpegs),
        encode(picture.convert("L"), "JPEG"),
        encode(picture.convert("CMYK"), "JPEG"),
        encode(picture, "PNG", exif=exif(5)),
        encode(picture.convert("RGBA"), "PNG"),
        encode(picture.quantize(16), "PNG", transparency=3),
        encode(picture, "PNG", **frames),
        encode(picture, "GIF"),
        encode(picture, "GIF", **frames),
        encode(picture, "WEBP"),
        encode(picture, "WEBP", lossless=True, exif=exif(3)),
        encode(picture, "BMP"),
        encode(picture, "TIFF"),
        encode(picture, "TIFF", compression="tiff_lzw"),
        encode(picture, "AVIF"),
        encode(picture, "MPO", **frames),
    ]


def mutate(data: bytes, rng: np.random.Generator, seeds: list[bytes]) -> bytes:
    """Damage a file once or a few times: flipped bits, cuts, splices, changed headers."""
    for _ in range(rng.integers(1, 4)):
        changed = bytearray(data)
        kind = rng.integers(5)
        if kind == 0:
            for place in rng.integers(0, max(1, len(changed)), rng.integers(1, 17)):
                changed[place : place + 1] = bytes([changed[place] ^ (1 << int(rng.integers(8)))]) if changed else b""
        elif kind == 1:
            del changed[int(rng.integers(0, len(changed) + 1)) :]
        elif kind == 2:
            other = seeds[rng.integers(len(seeds))] if rng.random() < 0.5 else data
            start, stop = sorted(rng.integers(0, len(other) + 1, 2))
            place = int(rng.integers(0, len(changed) + 1))
            changed[place : place + int(rng.choice((0, stop - start)))] = other[start:stop]
        elif kind == 3:
            place, value = int(rng.integers(0, 96)), EXTREMES[rng.integers(len(EXTREMES))]
            changed[place : place + len(value)] = value
        else:
            start = int(rng.integers(0, len(changed) + 1))
            del changed[start : start + int(rng.integers(1, 65))]
        data = bytes(changed)
    return data


def resident() -> int:
    """Return the memory of this process in KiB."""
    return psutil.Process().memory_info().rss // 1024


def main(first: int, count: int) -> None:
    seeds = make_seeds()
    for seed in seeds:
        load_pixels(seed, size=32)
    verdicts: Counter[str] = Counter()
    before = 0
    for number in range(first, first + count):
        rng = np.random.default_rng([7, number])
        data = mutate(seeds[number % len(seeds)], rng, seeds)
        faulthandler.dump_traceback_later(HANG, exit=True)
        try:
            load_pixels(data, size=32)
            verdicts["ok"] += 1
        except ImageError as error:
            verdicts[error.reason.value] += 1
        except BaseException:
            sys.stderr.write(f"mutant {number}\n")
            raise
        if number == first + WARM_UP:
            before = resident()
    faulthandler.cancel_dump_traceback_later()
    sys.stdout.write(json.dumps({"seeds": len(seeds), "verdicts": verdicts, "growth_kib": resident() - before}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
