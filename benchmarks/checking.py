"""Photos -> the speed of `pronk check`, a whole process, against threads that only decode the same files.

python benchmarks/checking.py PHOTOS [--photos 10000] [--repeats 3]

Where there are fewer photos than asked for they are copied, each with other bytes behind its end, so that no two files
are equal but many are near copies. Decoding uses all cores too, once as small as the check decodes (a JPEG can be had
at a fraction of its size) and once in full; the ratios are those of each repeat.
"""

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

DECODE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pronk.errors import ImageError
from pronk.storage.files import available_cores
from pronk.photos.decoding import decode, read_bytes
from pronk.dataset.scan import LOOK_SIDE

side = LOOK_SIDE if sys.argv[2] == "small" else None

def work(path):
    try:
        decode(read_bytes(path), min_side=side)
    except ImageError:
        pass

files = [path for path in Path(sys.argv[1]).rglob("*") if path.is_file()]
with ThreadPoolExecutor(available_cores()) as pool:
    print(sum(1 for _ in pool.map(work, files)))
"""


def multiply(source: Path, target: Path, number: int) -> None:
    """Write `number` photos into two class folders; what is appended behind a photo's end is not decoded."""
    files = sorted(path for path in source.glob("*/*") if path.is_file())
    rng = random.Random(1)
    for index, file in zip(range(number), itertools.cycle(files), strict=False):
        folder = target / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}{file.suffix}").write_bytes(file.read_bytes() + rng.randbytes(8))


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command to its end; return seconds and MiB of its peak memory."""
    before = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        raise SystemExit(f"{command[:4]} failed")
    return time.perf_counter() - before, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="a folder of class folders")
    parser.add_argument("--photos", dest="number", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        multiply(args.photos, Path(folder), args.number)
        rows = []
        for _ in range(args.repeats):
            small, _ = measure([sys.executable, "-c", DECODE, folder, "small"])
            full, _ = measure([sys.executable, "-c", DECODE, folder, "full"])
            check, memory = measure([sys.executable, "-m", "pronk", "--quiet", "check", folder, "--json"])
            seconds = {"small_seconds": small, "full_seconds": full, "check_seconds": check}
            rows.append(seconds | {"small": small / check, "full": full / check, "peak_mb": memory})
            print(json.dumps({name: round(value, 3) for name, value in rows[-1].items()}), flush=True)
    ratios = {name: median(row[name] for row in rows) for name in ("small", "full")}
    print(f"share of the speed of decoding small: {ratios['small']:.3f}, in full: {ratios['full']:.3f} (goal 0.8)")


if __name__ == "__main__":
    main()
