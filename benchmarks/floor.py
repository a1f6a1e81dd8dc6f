"""A finished run of `pronk train` -> what nothing could go below on this machine, in seconds, part by part.

What a run used has to be done at least once: import the framework, decode each photo at the size that is needed, run
the frozen blocks over each view, and learn with the trained ones. Each part is timed by itself, over all cores, with
nothing of what pronk does around it: no check, no cache, no head, no judging, no report. Training counts as three times
the multiply-adds of the trained blocks at the machine's fastest product of matrices, for each photo of each epoch that
phase 2 cannot pass over.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from programs import Bench
from throughput import count_multiply_adds, find_peak, run_prefix, run_side_by_side

from pronk.pools import available_cores

IMPORT = "import keras, tensorflow"
PARTS = {
    "import": "import the framework",
    "decode": "decode each photo",
    "frozen": "frozen blocks, each view",
    "trained": "trained blocks, at the speed of matrix products",
}


def measure_floor(bench: Bench, metrics: dict, *, seconds: float = 2.0) -> dict[str, float]:
    """Return the seconds of each of PARTS, over all cores, for the photos, views and epochs of a run."""
    from pronk.backbone.architecture import FEATURES
    from pronk.backbone.onnx_graphs import write_prefix, write_suffix
    from pronk.backbone.weights import load_backbone
    from pronk.training.phase_two import SELDOM

    counts, chosen = metrics["counts"], metrics["chosen"]
    weights, cut = load_backbone(str(bench.weights)).weights, chosen["fine_tune_from"]
    views = counts["train"] * chosen["views"] + counts["val"] + counts["test"]
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "prefix.onnx"
        prefix.write_bytes(write_prefix(weights, size=bench.image_size, cut=cut))
        speeds, _ = zip(*run_side_by_side(run_prefix, prefix, seconds), strict=True)
    trained = 0.0
    if metrics["fine_tuned"]:
        suffix = write_suffix(weights, size=bench.image_size, cut=cut, blocks=FEATURES[chosen["features"]])
        operations = 2 * 3 * count_multiply_adds(suffix) * counts["train"] * chosen["epochs"] / SELDOM
        trained = operations / max(find_peak(seconds).values()) / 1e9
    return {
        "import": time_import() / available_cores(),  # one core is busy with it, the others need not wait
        "decode": max(run_side_by_side(decode_share, list_photos(bench.data), bench.image_size)),
        "frozen": views / sum(speeds),
        "trained": trained,
    }


def time_import(repeats: int = 3) -> float:
    """Return the least seconds of a process that imports the framework and ends."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return min(times)


def list_photos(data: Path) -> list[str]:
    return sorted(str(path) for path in data.rglob("*") if path.is_file())


def decode_share(photos: list[str], size: int, start: Callable[[], int]) -> float:
    """Decode every n-th photo, as one of n processes; return the seconds it took."""
    from pronk.errors import ImageError
    from pronk.photos.decoding import load_pixels

    number = start()
    began = time.perf_counter()
    for path in photos[number :: available_cores()]:
        try:
            load_pixels(Path(path), size=size)
        except ImageError:  # other files lie among them
            continue
    return time.perf_counter() - began


def write_table(floor: dict[str, float], whole: float) -> str:
    """Return the Markdown: each part, and how far the whole process is above them.

    >>> print(write_table({"import": 2.0, "decode": 1.0, "frozen": 4.0, "trained": 3.0}, 15.0))
    | least that a run must do | seconds |
    |---|---|
    | import the framework | 2.0 |
    | decode each photo | 1.0 |
    | frozen blocks, each view | 4.0 |
    | trained blocks, at the speed of matrix products | 3.0 |
    | **together** | **10.0** |
    <BLANKLINE>
    The whole process takes 15.0 s, 1.50 times that.
    """
    together = sum(floor.values())
    rows = [f"| {title} | {floor[part]:.1f} |" for part, title in PARTS.items()]
    total = f"| **together** | **{together:.1f}** |"
    head = ["| least that a run must do | seconds |", "|---|---|"]
    return "\n".join(
        [*head, *rows, total, "", f"The whole process takes {whole:.1f} s, {whole / together:.2f} times that."]
    )
