"""A folder in TensorFlow's SavedModel format -> nothing, or a named refusal, without TensorFlow.

The format is a program: its operators can read and write any file. Two functions that TensorFlow adds for saving and
restoring have such operators, and Keras exports always hold them. Loading does not run these (TensorFlow restores the
file `variables/variables` beside the program by itself), so they may be there, but nothing may call them.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from pronk.model.guards.protobuf import only
from pronk.model.guards.schema import MANY, ONCE, Schema, integers_of, parts_of, read_message, refusal, show, text_of

PROGRAM = "saved_model.pb"
FILES = {  # largest sizes
    PROGRAM: 32 * 2**20,
    "fingerprint.pb": 2**12,
    "variables/variables.index": 2**20,
    "variables/variables.data-00000-of-00001": 128 * 2**20,
}
FOLDERS = ("assets", "variables")
MAX_PARTS = 2_000_000
MAX_ELEMENTS = 2**20  # of one constant; the arrays lie in variables/

OPERATORS = frozenset(
    b"Add AddV2 AssignVariableOp AvgPool BiasAdd Cast Const Conv2D DepthwiseConv2dNative DisableCopyOnRead "
    b"FusedBatchNormV3 Identity IdentityN MatMul Maximum Mean Minimum Mul NoOp Pad PartitionedCall Placeholder "
    b"ReadVariableOp RealDiv Relu Relu6 Reshape Rsqrt Softmax Squeeze StatefulPartitionedCall Sub Transpose "
    b"VarHandleOp VarIsInitializedOp".split()
)
# Only in functions that nothing calls. The last five do no harm without the others.
SAVING = frozenset(
    b"MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename StaticRegexFullMatch Select StringJoin Pack".split()
)
OBJECTS = (b"_generic_user_object", b"signature_map", b"trackable_dict_wrapper", b"trackable_list_wrapper")
START = b"saved_model_main_op"

SAVED: Schema = {1: ONCE, 2: ONCE}
META: Schema = {1: ONCE, 2: ONCE, 3: ONCE, 4: MANY, 5: MANY, 6: "a file beside the model", 7: ONCE}
GRAPH: Schema = {1: MANY, 2: ONCE, 3: ONCE, 4: ONCE, 5: ONCE}
LIBRARY: Schema = {1: MANY, 2: "gradients", 3: "gradients"}
FUNCTION: Schema = {1: ONCE, **dict.fromkeys((3, 4, 5, 6, 7, 8), MANY)}
SIGNATURE: Schema = {1: ONCE, **dict.fromkeys(range(2, 30), MANY)}
NODE: Schema = {1: ONCE, 2: ONCE, 3: MANY, 4: ONCE, 5: MANY, 6: ONCE, 7: ONCE}
ENTRY: Schema = {1: ONCE, 2: ONCE}
VALUE: Schema = dict.fromkeys(range(1, 11), ONCE)
VALUES: Schema = {**dict.fromkeys(range(2, 8), MANY), 8: "a list of constants", 9: "a list of functions"}
CALLED: Schema = {1: ONCE, 2: "a function with settings of its own"}
TENSOR: Schema = {
    **dict.fromkeys((1, 2, 3, 4), ONCE),
    **dict.fromkeys((*range(5, 14), 16, 17), MANY),
    14: "a constant that is a resource",
    15: "a constant of any type",
}
SHAPE: Schema = {2: MANY, 3: ONCE}
SIDE: Schema = {1: ONCE, 2: ONCE}
OBJECT_GRAPH: Schema = {1: MANY, 2: MANY}
OBJECT: Schema = {
    **dict.fromkeys((1, 3, 15), MANY),
    **dict.fromkeys((4, 6, 7, 8), ONCE),
    5: "a file beside the model",
    9: "a constant among its objects",
    10: "a resource among its objects",
    11: "a way of saving of its own",
    12: "a captured value among its objects",
    **dict.fromkeys((13, 14, 16), "an object of a registered class"),
}
USER_OBJECT: Schema = {1: ONCE, 2: ONCE, 3: ONCE}
POLYMORPHIC: Schema = {1: MANY, 2: ONCE}
CONCRETE: Schema = {1: ONCE, 2: MANY, 3: ONCE, 4: ONCE}


def check_saved_model(folder: Path) -> None:
    """Refuse a SavedModel that holds more than a network's arithmetic, or other files than its own.

    The folder may hold nothing else.

    Raises:
        ModelError: what is wrong with it.

    Example:
        >>> check_saved_model(Path("no such folder"))
        Traceback (most recent call last):
        pronk.errors.ModelError: the model file is refused: no such folder is no folder of a SavedModel
    """
    try:
        found = dict(_list_files(folder))
        if folder.is_symlink() or not {*FILES} - {"fingerprint.pb"} <= found.keys():
            raise refusal(f"{folder} is no folder of a SavedModel")
        data = (folder / PROGRAM).read_bytes()
    except (OSError, ValueError) as error:
        raise refusal(f"{folder} is no folder of a SavedModel") from error
    check_program(data)


def check_program(data: bytes) -> None:
    """Refuse the bytes of a saved_model.pb.

    Raises:
        ModelError: what is wrong with it.

    Example:
        >>> check_program(b"no model")
        Traceback (most recent call last):
        pronk.errors.ModelError: ...
    """
    if len(data) > FILES[PROGRAM]:
        raise refusal(f"{PROGRAM} has {len(data)} bytes")
    budget = iter(range(MAX_PARTS))
    saved = read_message(data, SAVED, budget)
    meta = read_message(only(parts_of(saved, 2), "program"), META, budget)
    for collection in parts_of(meta, 4):
        name = text_of(read_message(collection, ENTRY, budget), 1)
        if name != START:
            raise refusal(f"it has the collection {show(name)}")
    graph = read_message(only(parts_of(meta, 2), "graph"), GRAPH, budget)
    operators, _ = _read_nodes(parts_of(graph, 1), budget)
    saving, called = set[bytes](), set[bytes]()
    _refuse_unknown(operators, OPERATORS)
    for library in parts_of(graph, 2):
        for function in parts_of(read_message(library, LIBRARY, budget), 1):
            fields = read_message(function, FUNCTION, budget)
            signature = read_message(only(parts_of(fields, 1), "name of a function"), SIGNATURE, budget)
            operators, calls = _read_nodes(parts_of(fields, 3), budget)
            _refuse_unknown(operators, OPERATORS | SAVING)
            called |= calls
            if operators & SAVING:
                saving.add(text_of(signature, 1))
    called |= _read_objects(only(parts_of(meta, 7), "graph of objects"), budget)
    if called & saving:
        raise refusal(f"it can call {show(min(called & saving))}, which reads or writes files")


def _list_files(folder: Path, prefix: str = "") -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if name in FOLDERS and entry.is_dir(follow_symlinks=False):
                yield from _list_files(folder / entry.name, f"{name}/")
            elif name not in FILES or not entry.is_file(follow_symlinks=False):
                raise refusal(f"{folder} holds {show(name)}")
            else:
                size = entry.stat(follow_symlinks=False).st_size
                if size > FILES[name]:
                    raise refusal(f"{name} has {size} bytes")
                yield name, size


def _refuse_unknown(operators: set[bytes], known: frozenset[bytes]) -> None:
    if operators - known:
        raise refusal(f"it has the operator {show(min(operators - known))}")


def _read_nodes(nodes: list[memoryview], budget: Iterator[int]) -> tuple[set[bytes], set[bytes]]:
    """Return the operators, and the functions that are called or given."""
    operators, called = set[bytes](), set[bytes]()
    for node in nodes:
        fields = read_message(node, NODE, budget)
        operators.add(text_of(fields, 2))
        for attribute in parts_of(fields, 5):
            for value in parts_of(read_message(attribute, ENTRY, budget), 2):
                called |= _read_value(value, budget)
    return operators, called


def _read_value(value: memoryview, budget: Iterator[int]) -> set[bytes]:
    """Check the value of an attribute; return the function it names, if any."""
    fields = read_message(value, VALUE, budget)
    for values in parts_of(fields, 1):
        read_message(values, VALUES, budget)
    for tensor in parts_of(fields, 8):
        for shape in parts_of(read_message(tensor, TENSOR, budget), 2):
            sides = parts_of(read_message(shape, SHAPE, budget), 2)
            lengths = [length for side in sides for length in integers_of(side, 1)]
            if min(lengths, default=0) < 0 or math.prod(lengths) > MAX_ELEMENTS:
                raise refusal(f"it has a constant of shape {lengths}")
    return {text_of(read_message(function, CALLED, budget), 1) for function in parts_of(fields, 10)}


def _read_objects(message: memoryview, budget: Iterator[int]) -> set[bytes]:
    """Check the objects that loading makes; return the functions they can call."""
    graph = read_message(message, OBJECT_GRAPH, budget)
    called = {text_of(read_message(entry, ENTRY, budget), 1) for entry in parts_of(graph, 2)}
    for node in parts_of(graph, 1):
        fields = read_message(node, OBJECT, budget)
        for user in parts_of(fields, 4):
            kind = text_of(read_message(user, USER_OBJECT, budget), 1)
            if kind not in OBJECTS:
                raise refusal(f"it has an object of the kind {show(kind)}")
        for function in parts_of(fields, 6):
            called.update(bytes(name) for name in parts_of(read_message(function, POLYMORPHIC, budget), 1))
        for function in parts_of(fields, 8):
            called.add(text_of(read_message(function, CONCRETE, budget), 1))
    return called
