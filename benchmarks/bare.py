"""Model + folder of photos -> photos a second of decoding and model alone, with a thread per core.

python benchmarks/bare.py MODEL FOLDER SECONDS
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pronk.model.predictor import Predictor
from pronk.photos.decoding import load_pixels

CORES = len(os.sched_getaffinity(0))


def run_bare(model: Path, folder: Path, seconds: float) -> float:
    predictor = Predictor.load(model)
    bundle, files = predictor.bundle, [path.read_bytes() for path in sorted(folder.iterdir())]
    predictor.predict(files[:8])
    start = time.perf_counter()

    def work(number: int) -> int:
        done = 0
        while time.perf_counter() - start < seconds:
            pixels = load_pixels(files[(number + CORES * done) % len(files)], size=bundle.size, fit=bundle.fit)
            predictor.runtime.run(pixels[None])
            done += 1
        return done

    with ThreadPoolExecutor(CORES) as pool:
        done = sum(pool.map(work, range(CORES)))
        return done / (time.perf_counter() - start)


if __name__ == "__main__":
    print(run_bare(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
