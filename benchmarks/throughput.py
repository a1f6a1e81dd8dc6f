"""Network -> features a second as `pronk train` computes them, against the machine's matrix-product peak.

The frozen prefix runs in one process per core, one photo at a time, one thread each: no decoding, no drawing of
views, only the network. The peak is the fastest product of two large float32 matrices, in one process per core and
in one process with all cores, whichever is faster. A multiply-add counts as two operations (FLOP) on both sides.
Without weights the network is a random one of the same shape, and as fast.
"""

import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

import numpy as np
import onnx
from programs import report, spread

from pronk.pools import available_cores

GOAL = 0.65
SIZES = (512, 1024, 1536, 2048)
LONGEST_WAIT = 120.0  # seconds for a process to start, until the others give up


def write_default_prefix(folder: Path, weights: Path | None) -> Path:
    """Write the prefix at alpha 1.0 (or that of the weights) with pronk's default size and cut."""
    from pronk.backbone.onnx_graphs import write_prefix
    from pronk.backbone.weights import load_backbone, random_backbone
    from pronk.config import Settings
    from pronk.training.features import find_cut

    backbone = load_backbone(str(weights)) if weights else random_backbone(alpha=1.0)
    settings = Settings()
    path = folder / "prefix.onnx"
    path.write_bytes(write_prefix(backbone.weights, size=settings.image_size, cut=find_cut(settings)))
    return path


def count_multiply_adds(model: bytes) -> int:
    """Count the multiply-adds of a graph's convolutions for one photo, from the shapes of its layers."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    kernels = {constant.name: list(constant.dims) for constant in graph.initializer}  # [out, in per group, h, w]
    shapes = {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in graph.value_info}
    convolutions = (node for node in graph.node if node.op_type == "Conv")
    return sum(math.prod(kernels[node.input[1]][1:]) * math.prod(shapes[node.output[0]][1:]) for node in convolutions)


def make_photo(prefix: Path) -> tuple[object, dict[str, np.ndarray]]:
    """Open the prefix as a worker of pronk does; return it with one photo of noise."""
    from pronk.training.rows import open_prefix

    session = open_prefix(prefix)
    side = session.get_inputs()[0].shape[1]
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    return session, {"image": pixels}


def run_prefix(prefix: Path, seconds: float, start: Callable[[], object]) -> tuple[float, float]:
    """Return photos a second of one process, and the share of its core's time that it got."""
    session, photo = make_photo(prefix)
    for _ in range(3):
        session.run(["features", "cut"], photo)
    start()
    done, began, worked = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        session.run(["features", "cut"], photo)
        done += 1
    elapsed = time.perf_counter() - began
    return done / elapsed, (time.process_time() - worked) / elapsed


def multiply_matrices(threads: int, seconds: float, start: Callable[[], object]) -> dict[int, float]:
    """Return GFLOP/s of float32 matrix products by their size: the best of many."""
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    best: dict[int, float] = {}
    with threadpool_limits(threads):
        for size in SIZES:
            left, right = (rng.random((size, size), dtype=np.float32) for _ in range(2))
            out = left @ right
            start()  # so that all processes multiply the same size at the same time
            began = time.perf_counter()
            while time.perf_counter() - began < seconds / len(SIZES):
                once = time.perf_counter()
                np.matmul(left, right, out=out)
                best[size] = max(best.get(size, 0.0), 2 * size**3 / (time.perf_counter() - once) / 1e9)
    return best


def run_side_by_side(work: Callable, *args: object) -> list:
    """Run `work(*args, start)` in one process per core, all from the same moment on; return what each says."""
    context = multiprocessing.get_context("spawn")
    cores = available_cores()
    barrier, answers = context.Barrier(cores, timeout=LONGEST_WAIT), context.SimpleQueue()
    processes = [context.Process(target=_answer, args=(answers, barrier, work, args)) for _ in range(cores)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a process of the benchmark failed")
    return [answers.get() for _ in processes]


def _answer(answers, barrier, work: Callable, args: tuple) -> None:
    try:
        answers.put(work(*args, barrier.wait))
    except BaseException:
        barrier.abort()  # or the others would wait for ever
        raise


def find_peak(seconds: float) -> dict[str, float]:
    """Return GFLOP/s of matrix products: in a process per core together, and in one process with all cores."""
    together = run_side_by_side(multiply_matrices, 1, seconds)
    alone = multiply_matrices(available_cores(), seconds, lambda: None)
    return {
        "process_per_core": max(sum(rates[size] for rates in together) for size in SIZES),
        "all_cores_in_one": max(alone.values()),
    }


def measure_throughput(*, weights: Path | None, repeats: int, seconds: float) -> dict:
    """Measure speed and peak by turns, so that a machine that drifts drifts for both."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = write_default_prefix(Path(folder), weights)
        multiply_adds = count_multiply_adds(prefix.read_bytes())
        gigaflop = 2 * multiply_adds / 1e9
        rounds = []
        for number in range(repeats):
            report(f"throughput, repeat {number + 1}: features, then matrix products")
            speeds, core_times = zip(*run_side_by_side(run_prefix, prefix, seconds), strict=True)
            peaks = find_peak(seconds)
            speed, reached = sum(speeds), sum(speeds) * gigaflop
            row = {"features": speed, "core_time": mean(core_times), "reached": reached}
            rounds.append({**row, **peaks, "share": reached / max(peaks.values())})
            report(f"  {speed:.0f} features a second, {rounds[-1]['share']:.0%} of the peak")
    return {"cores": available_cores(), "multiply_adds": multiply_adds, "rounds": rounds}


def write_table(content: dict) -> str:
    """Return the Markdown: speed against peak."""
    rounds = content["rounds"]
    share = median(row["share"] for row in rounds)
    rows = (
        ("features a second, all cores", "features", ".0f"),
        ("time of the cores that they got; the rest went to other programs", "core_time", ".0%"),
        ("reached, GFLOP/s", "reached", ".0f"),
        ("matrix products in a process per core, GFLOP/s", "process_per_core", ".0f"),
        ("matrix products in one process, GFLOP/s", "all_cores_in_one", ".0f"),
        ("**share of the faster of the two**", "share", ".0%"),
    )
    lines = ["| | median (range) |", "|---|---|"]
    lines += [f"| {title} | {spread([row[name] for row in rounds], form)} |" for title, name, form in rows]
    busy = 1000 * content["cores"] / median(row["features"] for row in rounds)
    return "\n".join(
        [
            *lines,
            "",
            f"One feature costs {content['multiply_adds'] / 1e6:.0f} million multiply-adds, two"
            f" operations each. The share {'reaches' if share >= GOAL else 'is below'} the goal of {GOAL:.0%}."
            f" With every core busy a photo takes {busy:.1f} ms."
            f" {len(rounds)} repeat(s).",
        ]
    )
