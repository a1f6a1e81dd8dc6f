"""A Keras network -> what a microcontroller needs: integers alone, as a C array, with an example and its sizes."""

import dataclasses
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from pronk.errors import ModelError
from pronk.text import visible

# Registered by LiteRT for Microcontrollers (its micro_mutable_op_resolver.h), by their numbers in LiteRT's schema.
OPERATORS = {
    0: "Add", 1: "AveragePool2D", 2: "Concatenation", 3: "Conv2D", 4: "DepthwiseConv2D", 9: "FullyConnected", 18: "Mul",
    21: "Relu6", 22: "Reshape", 25: "Softmax", 34: "Pad", 40: "Mean", 41: "Sub", 43: "Squeeze", 114: "Quantize",
}  # fmt: skip
INT8 = 9  # in the schema's numbers of types
WHOLE_NUMBERS = {2: 4, INT8: 1, 4: 8}  # bytes of an int32, int8 and int64
ALIGNMENT = 16
# Bytes that the interpreter notes, beside activations, of each channel of a convolution, each tensor, each operator.
PER_CHANNEL, PER_TENSOR, PER_OPERATOR = 8, 24, 128
LARGE_FLASH, LARGE_ARENA = 2**20, 512 * 2**10  # bytes; few microcontrollers have more
CODE_BYTES = 100_000  # of the interpreter with these operators, roughly
BYTES_A_LINE = 16
SIZES = ("flash_bytes", "arena_bytes", "arena_is")
ARENA = re.compile(r"Arena allocation total (\d+) bytes")
MEASURE = """
import sys
from pathlib import Path
import numpy as np
from tflite_micro.python.tflite_micro import runtime
opened = runtime.Interpreter.from_bytes(Path(sys.argv[1]).read_bytes())
opened.set_input(np.zeros(opened.get_input_details(0)["shape"], np.int8), 0)
opened.invoke()
opened.print_allocations()
"""
HEADER = """\
// Written by pronk. The model, as LiteRT for Microcontrollers takes it.
#pragma once
extern const unsigned char model_data[];
extern const unsigned int model_data_size;
"""
SOURCE = Template("""\
#include "model_data.h"

alignas($alignment) const unsigned char model_data[] = {
$lines
};
const unsigned int model_data_size = $size;
""")
EXAMPLE = Template("""\
// What is in an RGB picture of $side x $side pixels? Needs LiteRT for Microcontrollers and model_data.cc.
#include <cstdint>
#include <cstdio>

#include "model_data.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

constexpr int kSide = $side, kClasses = $classes;
const char* const kLabels[kClasses] = {$labels};
alignas($alignment) static uint8_t arena[$arena];

// Returns the most likely class, and its probability in 256ths; -1 if the model does not start.
int Classify(const uint8_t* rgb, int* probability) {
  static tflite::MicroMutableOpResolver<$operators> resolver;
  static bool ready = $registered;
  static tflite::MicroInterpreter interpreter(tflite::GetModel(model_data), resolver, arena, sizeof(arena));
  static bool allocated = interpreter.AllocateTensors() == kTfLiteOk;
  if (!ready || !allocated) return -1;
  int8_t* input = interpreter.input(0)->data.int8;
  for (int i = 0; i < kSide * kSide * 3; ++i) input[i] = static_cast<int8_t>(rgb[i] - 128);
  if (interpreter.Invoke() != kTfLiteOk) return -1;
  const int8_t* output = interpreter.output(0)->data.int8;
  int best = 0;
  for (int i = 1; i < kClasses; ++i) best = output[i] > output[best] ? i : best;
  *probability = output[best] + 128;
  return best;
}

int main() {
  static uint8_t rgb[kSide * kSide * 3];  // fill it from the camera
  int probability = 0, best = Classify(rgb, &probability);
  if (best >= 0) std::printf("%s %d/256\\n", kLabels[best], probability);
  return best < 0;
}
""")


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a model takes of a microcontroller.

    Attributes:
        flash_bytes: the model itself; the interpreter's code comes to it.
        arena_bytes: memory for activations.
        is_measured: by the interpreter itself; otherwise the arena is an estimate.
        operators: names of the kinds of operator.
    """

    flash_bytes: int
    arena_bytes: int
    is_measured: bool
    operators: tuple[str, ...]

    @property
    def record(self) -> dict[str, Any]:
        """The fields of micro.json and parity.json, SIZES."""
        arena_is = "measured" if self.is_measured else "an estimate"
        return dict(zip(SIZES, (self.flash_bytes, self.arena_bytes, arena_is), strict=True))


def write_program(model: bytes, classes: Sequence[str], *, size: int) -> dict[str, bytes]:
    """Return what lies beside an integer model, by file name: the C array, an example, labels, and its numbers.

    Raises:
        ModelError: if the model has a float, or an operator that microcontrollers lack.
    """
    needs, quantised = measure_needs(model), read_quantisation(model)
    facts = {"input": quantised[0], "output": quantised[1], "size": size, "operators": needs.operators, **needs.record}
    registered = " && ".join(f"resolver.Add{name}() == kTfLiteOk" for name in needs.operators)
    names = ", ".join(json.dumps(visible(name), ensure_ascii=False) for name in classes)
    example = EXAMPLE.substitute(
        side=size,
        classes=len(classes),
        labels=names,
        arena=-(-needs.arena_bytes // 1024) * 1024,
        operators=len(needs.operators),
        registered=registered,
        alignment=ALIGNMENT,
    )
    rows = (model[start : start + BYTES_A_LINE] for start in range(0, len(model), BYTES_A_LINE))
    lines = "\n".join("  " + " ".join(f"0x{byte:02x}," for byte in row) for row in rows)
    return {
        "model_data.cc": SOURCE.substitute(alignment=ALIGNMENT, lines=lines, size=len(model)).encode(),
        "model_data.h": HEADER.encode(),
        "main.cc": example.encode(),
        "labels.txt": "".join(f"{visible(name)}\n" for name in classes).encode(),
        "micro.json": (json.dumps(facts, indent=2) + "\n").encode(),
    }


def read_sizes(contents: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what parity.json gets of an export's files: what the model takes of a board; nothing for other formats."""
    facts = json.loads(contents.get("micro.json", b"{}"))
    return {name: facts[name] for name in SIZES if name in facts}


def say_size(record: dict[str, Any]) -> str:
    """Say what a model takes, and how to get a smaller one where it is more than most microcontrollers have."""
    flash, arena = record["flash_bytes"], record["arena_bytes"]
    told = (
        f"{flash / 2**10:,.0f} KB of flash and some {CODE_BYTES / 2**10:.0f} KB for the interpreter, "
        f"{arena / 2**10:,.0f} KB of memory ({record['arena_is']})"
    )
    if flash <= LARGE_FLASH and arena <= LARGE_ARENA:
        return told
    return f"{told}: more than most microcontrollers have; train with --alpha 0.35 --image-size 96"


def measure_needs(model: bytes) -> Needs:
    """Look at an integer model: its operators, its size, and the memory it takes, measured where that can be.

    Raises:
        ModelError: if it has a float, or an operator that microcontrollers lack.
    """
    whole = _parse(model)
    graph = whole.subgraphs[0]
    numbers = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in whole.operatorCodes]
    foreign = sorted(number for number in numbers if number not in OPERATORS)
    floats = [tensor.name for tensor in graph.tensors if tensor.type not in WHOLE_NUMBERS]
    if foreign or floats:
        what = f"the operators {foreign}" if foreign else f"numbers that are no integers: {floats[:3]}"
        raise ModelError(f"the model has {what}", hint="export it to litert-int8 instead")
    channels = sum(len(tensor.quantization.scale) for tensor in graph.tensors if _is_kernel(tensor))
    noted = PER_CHANNEL * channels + PER_TENSOR * len(graph.tensors) + PER_OPERATOR * len(graph.operators)
    arena = _run_interpreter(model)
    names = tuple(sorted({OPERATORS[number] for number in numbers}))
    return Needs(len(model), arena or _find_peak(graph) + noted, arena is not None, names)


def read_quantisation(model: bytes) -> tuple[dict[str, float], dict[str, float]]:
    """Return scale and zero point of the input and of the output: value = scale * (number - zero point)."""
    graph = _parse(model).subgraphs[0]
    found = (graph.tensors[places[0]].quantization for places in (graph.inputs, graph.outputs))
    first, last = ({"scale": float(one.scale[0]), "zero_point": int(one.zeroPoint[0])} for one in found)
    return first, last


def _parse(model: bytes) -> Any:
    from tensorflow.lite.python import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(model, 0)


def _find_peak(graph: Any) -> int:
    """Return the most bytes of activations that are needed at once: each from where it is made to its last use."""
    made = {graph.inputs[0]: 0} | {
        place: step for step, operator in enumerate(graph.operators) for place in operator.outputs
    }
    used = {place: step for step, operator in enumerate(graph.operators) for place in operator.inputs if place in made}
    sizes = {place: _count_bytes(graph.tensors[place]) for place in made}
    steps = range(len(graph.operators))
    return max(sum(sizes[one] for one in made if made[one] <= step <= used.get(one, step)) for step in steps)


def _is_kernel(tensor: Any) -> bool:
    """Tell whether these are weights, each channel of which has a scale of its own."""
    scales = tensor.quantization.scale if tensor.quantization else None
    return tensor.type == INT8 and scales is not None and len(scales) > 1


def _count_bytes(tensor: Any) -> int:
    return int(np.prod(tensor.shape)) * WHOLE_NUMBERS[tensor.type]


def _run_interpreter(model: bytes) -> int | None:
    """Return the bytes of arena that the interpreter for microcontrollers takes; None where it is not installed."""
    if find_spec("tflite_micro") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(model)
        done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True)
    found = ARENA.search(done.stderr + done.stdout)
    return int(found[1]) if done.returncode == 0 and found else None
