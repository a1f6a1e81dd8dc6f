"""ONNX graph -> multiply-adds and time by kind of operator: what a photo costs, and where ONNX Runtime spends it."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime

PROFILED_RUNS = 30
POINTWISE, DEPTHWISE, OTHER_CONV, REST = "1x1 convolutions", "depthwise convolutions", "first convolution", "all else"


def conv_kind(kernel: Sequence[int]) -> str:
    """Name a convolution by the shape of its kernel, [out, in per group, h, w].

    >>> conv_kind([96, 16, 1, 1]), conv_kind([96, 1, 3, 3]), conv_kind([32, 3, 3, 3])
    ('1x1 convolutions', 'depthwise convolutions', 'first convolution')
    """
    if kernel[2:] == [1, 1]:
        return POINTWISE
    return DEPTHWISE if kernel[1] == 1 else OTHER_CONV


def conv_multiply_adds(kernel: Sequence[int], output: Sequence[int]) -> int:
    """Count multiply-adds for one photo; kernel [out, in per group, h, w], output [n, out, h, w].

    >>> conv_multiply_adds([32, 3, 3, 3], [1, 32, 112, 112])
    10838016
    """
    return math.prod(kernel[1:]) * math.prod(output[1:])


def count_multiply_adds(model: bytes) -> dict[str, int]:
    """Count the multiply-adds of a graph's convolutions for one photo, by kind, from the shapes of its layers."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    kernels = {constant.name: list(constant.dims) for constant in graph.initializer}
    shapes = {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in graph.value_info}
    counts: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type == "Conv":
            kernel = kernels[node.input[1]]
            counts[conv_kind(kernel)] += conv_multiply_adds(kernel, shapes[node.output[0]])
    return dict(counts)


def profile_operators(prefix: Path, photo: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Return what a photo takes by kind of operator, as ONNX Runtime itself measures it: see `read_profile`."""
    options = onnxruntime.SessionOptions()  # those of pronk.model.formats.onnx.open_session, but for the profile
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix.with_suffix(""))
    session = onnxruntime.InferenceSession(prefix.read_bytes(), options, providers=["CPUExecutionProvider"])
    for _ in range(PROFILED_RUNS):
        session.run(["features", "cut"], photo)
    return read_profile(json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")))


def read_profile(events: Sequence[Mapping]) -> dict[str, dict[str, float]]:
    """Return milliseconds and executed multiply-adds by kind of operator, of each operator the median of its runs.

    More is executed than counted where ONNX Runtime fills channels up to whole blocks.
    """
    runs: dict[str, list[float]] = {}
    kinds: dict[str, tuple[str, int]] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        shapes = event["args"]
        if "Conv" in shapes["op_name"]:
            (kernel,), (output,) = shapes["input_type_shape"][1].values(), shapes["output_type_shape"][0].values()
            kinds[event["name"]] = conv_kind(kernel), conv_multiply_adds(kernel, output)
        else:
            kinds[event["name"]] = REST, 0
        runs.setdefault(event["name"], []).append(event["dur"] / 1000)
    table = {kind: {"milliseconds": 0.0, "executed": 0} for kind in (POINTWISE, DEPTHWISE, OTHER_CONV, REST)}
    for name, (kind, multiply_adds) in kinds.items():
        table[kind]["milliseconds"] += median(runs[name])
        table[kind]["executed"] += multiply_adds
    return table


def write_operators(operators: dict[str, dict[str, float]], counts: Mapping[str, int], *, peak: float) -> list[str]:
    """Return lines: where one core's time goes by kind of operator, against its peak in GFLOP/s."""
    spent = sum(row["milliseconds"] for row in operators.values())
    work = sum(counts.values())
    lines = [
        "| operators, on one core alone | share of time | share of multiply-adds | GFLOP/s | of the core's peak |",
        "|---|---|---|---|---|",
    ]
    for kind, row in operators.items():
        speed = 2 * counts.get(kind, 0) / row["milliseconds"] / 1e6
        shares = f"{row['milliseconds'] / spent:.0%} | {counts.get(kind, 0) / work:.0%}"
        lines.append(f"| {kind} | {shares} | {speed:.0f} | {speed / peak:.0%} |")
    ideal = operators[POINTWISE]["milliseconds"] * work / counts[POINTWISE]
    more = sum(row["executed"] for row in operators.values()) / work - 1
    return [
        *lines,
        "",
        "Only the 1x1 convolutions are matrix products. A depthwise convolution does nine multiply-adds with each"
        " number it reads, a 1x1 convolution as many as it has output channels. Were everything as fast as the 1x1"
        f" convolutions, a photo would take {ideal:.1f} ms of a core instead of {spent:.1f}. ONNX Runtime executes"
        f" {more:.0%} more multiply-adds than are counted here, since it fills channels up to whole blocks.",
    ]
