"""A .keras file -> its weights, where layers and values are those that pronk saves; Keras is not needed to see that.

The file is a zip of three members. Keras makes an object of every `class_name` in config.json, looks modules up by
name, and allocates what the layers declare; its own guard, `safe_mode`, is about Lambda layers only.
"""

import io
import json
import math
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from pronk.model.guards.schema import refusal, show

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
MEMBERS = {METADATA: 2**12, CONFIG: 2**20, WEIGHTS: 128 * 2**20}  # largest sizes; a config has 160 kB
END, END_BYTES, LONGEST_DIRECTORY = "<4s4H2LH", 22, 2**12
DEEPEST = 32
MOST_LAYERS = 400
FLOAT_BYTES = 4

NETWORK = "Functional"
TENSOR = "__keras_tensor__"
LAYERS = (
    *("Add", "BatchNormalization", "Conv2D", "Dense", "DepthwiseConv2D", "Dropout", "GlobalAveragePooling2D"),
    *("InputLayer", "ReLU", "Rescaling", "ZeroPadding2D"),
)
MODULES: dict[str, tuple[str | None, ...]] = {
    NETWORK: ("keras.src.models.functional", "keras.models", "keras"),
    TENSOR: (None,),
    "DTypePolicy": ("keras",),
    **dict.fromkeys(("GlorotUniform", "Ones", "Zeros"), ("keras.initializers",)),
    **dict.fromkeys(LAYERS, ("keras.layers",)),
}
FLOAT32 = {"name": "float32"}
NAMING = {"class_name", "module", "registered_name"}
PARTS = NAMING | {"build_config", "compile_config", "config", "inbound_nodes", "name", "shared_object_id"}


def check_keras(data: bytes) -> bytes:
    """Refuse a .keras file unless it is the network that pronk builds, and return the bytes of its weights.

    They are an HDF5 file, of which nothing is checked here: that takes h5py, see `training/h5.py`.

    Raises:
        ModelError: what is wrong with it.

    Example:
        >>> check_keras(b"no model")
        Traceback (most recent call last):
        pronk.errors.ModelError: the model file is refused: it is no .keras file
    """
    try:
        members = _read_members(data)
        config = _read_json(members[CONFIG])
        metadata = _read_json(members[METADATA])
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, struct.error, zlib.error) as error:
        raise refusal(f"it is damaged: {error}") from error
    if not (metadata.keys() <= {"keras_version", "date_saved"} and all(isinstance(v, str) for v in metadata.values())):
        raise refusal(f"{METADATA} holds {show(str(metadata))}")
    for found in _walk(config):
        _check_object(found)
    _check_network(config, len(members[WEIGHTS]))
    return members[WEIGHTS]


def _read_members(data: bytes) -> dict[str, bytes]:
    if len(data) < END_BYTES or data[:4] != b"PK\x03\x04":
        raise refusal("it is no .keras file")
    # A directory of millions of entries takes gigabytes as soon as it is opened.
    _, disk, first, here, entries, size, start, note = struct.unpack(END, data[-END_BYTES:])
    if (disk, first, note) != (0, 0, 0) or not (here == entries == len(MEMBERS) and size <= LONGEST_DIRECTORY):
        raise refusal(f"it has {entries} members instead of {len(MEMBERS)}: {', '.join(MEMBERS)}")
    if start + size + END_BYTES != len(data):
        raise refusal("its directory is not at its end")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if sorted(member.filename for member in members) != sorted(MEMBERS):
            raise refusal(f"it has the members {show(', '.join(member.filename for member in members))}")
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or member.flag_bits & 1:
                raise refusal(f"{member.filename} is a link or encrypted")
            # Keras stores without compression, so what is read is never larger than the file.
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise refusal(f"{member.filename} is compressed")
            if member.file_size > MEMBERS[member.filename]:
                raise refusal(f"{member.filename} has {member.file_size} bytes")
        return {member.filename: archive.read(member) for member in members}


def _read_json(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise refusal("its JSON is too deep") from error
    if not isinstance(value, dict):
        raise refusal(f"its JSON is no object: {show(text)}")
    return value


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object within a JSON value, the outermost first."""
    rows = [value]
    for _ in range(DEEPEST):
        yield from (item for item in rows if isinstance(item, dict))
        rows = [
            inner
            for item in rows
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not rows:
            return
    raise refusal(f"its JSON is more than {DEEPEST} levels deep")


def _check_object(found: dict[str, Any]) -> None:
    if not NAMING & found.keys():
        return
    name, module, registered = found.get("class_name"), found.get("module"), found.get("registered_name")
    known = isinstance(name, str) and module in MODULES.get(name, ()) and registered in (None, name)
    if not known or not isinstance(found.get("config"), dict):
        raise refusal(f"it has the object {show(f'{module}>{name}')}, registered as {show(str(registered))}")
    if not found.keys() <= PARTS:
        raise refusal(f"{show(str(name))} has the parts {show(', '.join(sorted(found.keys() - PARTS)))}")
    if name == "DTypePolicy" and found["config"] != FLOAT32:
        raise refusal(f"it computes in {show(str(found['config']))}")


def _check_network(config: dict[str, Any], available: int) -> None:
    """Refuse what is no flat network, or declares more parameters than the file holds."""
    try:
        layers = config["config"]["layers"]
        if config.get("class_name") != NETWORK or config.get("compile_config") or len(layers) > MOST_LAYERS:
            raise refusal(f"it has {len(layers)} layers in {show(str(config.get('class_name')))}, compiled or not")
        if sum(found.get("class_name") == NETWORK for found in _walk(config)) > 1:
            raise refusal("it has a network within the network")
        # Keras makes every array before it looks into the file for the values.
        declared = FLOAT_BYTES * sum(map(_count_parameters, layers))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise refusal(f"{CONFIG} is damaged: {error!r}") from error
    if declared > available:
        raise refusal(f"its layers need {declared} bytes, and {WEIGHTS} has {available}")


def _count_parameters(layer: dict[str, Any]) -> int:
    """Return the number of parameters, but for the biases of convolutions, which pronk's have not."""
    kind, config = layer["class_name"], layer["config"]
    if kind not in ("Conv2D", "DepthwiseConv2D", "BatchNormalization", "Dense"):
        return 0
    channels = _natural(layer["build_config"]["input_shape"][-1])
    if kind == "BatchNormalization":
        return 4 * channels
    if kind == "Dense":
        return _natural(config["units"]) * (channels + 1)
    kernel = math.prod(map(_natural, config["kernel_size"]))
    return kernel * channels * _natural(config["filters" if kind == "Conv2D" else "depth_multiplier"])


def _natural(value: object) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is no size")
    return value
