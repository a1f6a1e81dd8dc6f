import base64
import contextlib
import io
import json
import os
import pickle
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from helpers import TESTS
from helpers.fuzzing import mutate
from helpers.training import lively_backbone, write_h5
from helpers.wire import field
from pronk.backbone.h5 import open_h5, read_network
from pronk.backbone.onnx_graphs import write_model, write_prefix
from pronk.backbone.weights import random_backbone
from pronk.config import Settings
from pronk.errors import ModelError
from pronk.model.guards.files import MAX_BYTES, read_limited
from pronk.model.guards.keras_archive import check_keras
from pronk.model.guards.onnx import OPERATORS, check_onnx
from pronk.model.guards.savedmodel import check_program, check_saved_model
from pronk.model.guards.tflite import check_tflite

SMALL = lively_backbone(0.35)
KERNEL = np.zeros((1280, 2), np.float32)
WHOLE_ONNX = write_model(SMALL.weights, KERNEL, KERNEL[0], size=32)


def make_onnx(nodes=None, arrays=(), **model):
    """A small model to change: image -> Add -> out."""
    nodes = [helper.make_node("Add", ["image", "image"], ["out"])] if nodes is None else nodes
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("image", "out")]
    graph = helper.make_graph(nodes, "pronk", value[:1], value[1:], list(arrays))
    return helper.make_model(graph, producer_name="pronk", opset_imports=[helper.make_opsetid("", 18)], **model)


def make_outside(location):
    """An array whose content lies in another file."""
    array = numpy_helper.from_array(np.zeros((2, 2), np.float32), "kernel")
    onnx.external_data_helper.set_external_data(array, location)
    array.ClearField("raw_data")
    array.data_location = TensorProto.EXTERNAL
    return array


@pytest.fixture(scope="module")
def keras_file():
    """The bytes of a .keras file that pronk has saved."""
    from pronk.backbone.keras_network import build_network, save_network

    network = build_network(random_backbone(alpha=0.35), classes=2, settings=Settings(image_size=32))
    return save_network(network)


def rezip(data, *, config=None, members=None, method=zipfile.ZIP_STORED):
    """Write a .keras file again with another config, or with other members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    if config is not None:
        contents["config.json"] = config if isinstance(config, bytes) else json.dumps(config).encode()
    contents |= members or {}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def read_config(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return json.loads(archive.read("config.json"))


def with_layer(data, **layer):
    """Put one more layer into a .keras file."""
    config = read_config(data)
    config["config"]["layers"].append({"name": "more", "inbound_nodes": [], "registered_name": None} | layer)
    return rezip(data, config=config)


def with_weights(data, change):
    """Change the HDF5 file within a .keras file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "r+") as file:
        change(file, "layers/dense/vars/0")
    return rezip(data, members={"model.weights.h5": weights.getvalue()})


# --- R16: models that were made to harm


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (Path(self.canary),)


def bomb(data):
    """A config of 400 MiB in a file of 2 MB."""
    buffer = io.BytesIO(rezip(data))
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as archive:
        for name in ("metadata.json", "model.weights.h5"):
            archive.writestr(name, source.read(name))
        member = zipfile.ZipInfo("config.json")
        member.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(member, "w") as file:
            for _ in range(400):
                file.write(b" " * 2**20)
    return buffer.getvalue()


def link_outside(file, name):
    del file[name]
    file[name] = h5py.ExternalLink("secret.h5", "/kernel")


def virtual(file, name):
    shape = file[name].shape
    layout = h5py.VirtualLayout(shape=shape, dtype="float32")
    layout[...] = h5py.VirtualSource("secret.h5", "kernel", shape=shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def huge(file, name):
    del file[name]
    file.create_dataset(name, (10**6, 10**6), "float32", chunks=(64, 64))


def lambda_layer(canary):
    """What Keras saves of a Lambda layer: the code of its function."""
    import marshal

    code = compile(f"import pathlib; pathlib.Path({str(canary)!r}).touch()", "layer", "exec")
    function = {"code": base64.b64encode(marshal.dumps(code)).decode(), "defaults": None, "closure": None}
    return {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"name": "more", "function": {"class_name": "__lambda__", "config": function}, "arguments": {}},
    }


def lambda_h5(folder, canary):
    """All weights of a MobileNetV2, and a model around them that carries code."""
    path = write_h5(folder / "net.h5", SMALL)
    with h5py.File(path, "r+") as file:
        layers = [lambda_layer(canary)]
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
    return path.read_bytes()


def call(module, name, *arguments):
    """What would call a function of any module, in a Keras that lets it."""
    return {"module": module, "class_name": name, "registered_name": name, "config": {"arguments": list(arguments)}}


SAVED_LAYER = {"filepath": "hostile", "call_endpoint": "serve", "name": "more"}
# By name: the kind of the model, the name of its file, and its content made from the folder, canary and good file.
HOSTILE = {
    "ONNX of constants": ("onnx", lambda _, canary, good: of_constants("Add").SerializeToString()),
    "ONNX padding": ("onnx", lambda _, canary, good: node("Conv", pads=[60000] * 4).SerializeToString()),
    "Lambda .keras": ("keras", lambda _, canary, good: with_layer(good, **lambda_layer(canary))),
    "module import": ("keras", lambda _, canary, good: with_layer(good, **call("os", "system", f"touch {canary}"))),
    "enable_unsafe_deserialization": (
        "keras",
        lambda _, canary, good: with_layer(
            with_layer(good, **call("keras.config", "enable_unsafe_deserialization")), **lambda_layer(canary)
        ),
    ),
    "TFSMLayer": (
        "keras",
        lambda _, canary, good: with_layer(good, module="keras.layers", class_name="TFSMLayer", config=SAVED_LAYER),
    ),
    ".h5 Lambda": ("weights", lambda folder, canary, good: lambda_h5(folder, canary)),
    "ExternalLink": ("keras", lambda _, canary, good: with_weights(good, link_outside)),
    "virtual dataset": ("keras", lambda _, canary, good: with_weights(good, virtual)),
    "shape bomb": ("keras", lambda _, canary, good: with_weights(good, huge)),
    "zip bomb": ("keras", lambda _, canary, good: bomb(good)),
    "zip-slip asset": ("keras", lambda _, canary, good: rezip(good, members={f"assets/../../{canary.name}": b"x"})),
    "pickle as .keras": ("keras", lambda _, canary, good: pickle.dumps(Payload(canary))),
    "pickle as .onnx": ("onnx", lambda _, canary, good: pickle.dumps(Payload(canary))),
    "pickle as .h5": ("weights", lambda _, canary, good: pickle.dumps(Payload(canary))),
    "ONNX external data ../": (
        "onnx",
        lambda _, canary, good: make_onnx(arrays=[make_outside("../secret.bin")]).SerializeToString(),
    ),
    "ONNX external data absolute": (
        "onnx",
        lambda folder, canary, good: make_onnx(arrays=[make_outside(str(folder / "secret.bin"))]).SerializeToString(),
    ),
    "ONNX external data symlink": (
        "onnx",
        lambda folder, canary, good: make_onnx(arrays=[make_outside("link.bin")]).SerializeToString(),
    ),
}

CHILD = """
import json, sys, time
from pathlib import Path
started, kind, path, says, seen = time.perf_counter(), sys.argv[1], Path(sys.argv[2]), "", []
from pronk.errors import ModelError
from pronk.model.guards.files import check_onnx, read_limited
if kind == "weights":
    from pronk.backbone.weights import load_backbone
elif kind == "keras":
    from pronk.backbone.h5 import read_network
SHARP = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.", "urllib.")
sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(SHARP) else None)
try:
    if kind == "weights":
        load_backbone(str(path))
    elif kind == "keras":
        read_network(path)
    else:
        check_onnx(read_limited(path))
except ModelError as error:
    says = f"{error} / {error.hint}"
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({
    "says": says, "seconds": time.perf_counter() - started, "mib": int(peak.split()[1]) / 1024, "events": seen,
    "frameworks": sorted({"keras", "tensorflow", "torch", "jax"} & set(sys.modules)),
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_and_does_nothing(name, tmp_path, keras_file):
    kind, make = HOSTILE[name]
    folder, canary = tmp_path / "model", tmp_path / "canary"
    folder.mkdir()
    path = folder / {"keras": "model.keras", "onnx": "model.onnx", "weights": "net.h5"}[kind]
    with h5py.File(folder / "secret.h5", "w") as secret:
        secret["kernel"] = np.zeros((1280, 2), np.float32)
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (folder / "secret.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path.write_bytes(make(folder, canary, keras_file))
    before = sorted(tmp_path.rglob("*"))
    command = [sys.executable, "-c", CHILD, kind, path.name]
    # The child's memory is measured from its own start: the parent's would count too in what the system keeps.
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    if os.environ.get("PRONK_SHOW"):
        sys.stderr.write(f"{name:32}{report['seconds']:.2f} s {report['mib']:.0f} MiB  {report['says']}\n")
    assert "refused" in report["says"] or "holds no MobileNetV2" in report["says"]
    assert report["says"].split(" / ")[1]
    assert report["mib"] <= 300
    assert report["frameworks"] == []
    assert report["events"] == []
    assert sorted(tmp_path.rglob("*")) == before
    assert not canary.exists()


@pytest.mark.more
def test_the_canary_can_sing(tmp_path):
    """So that its absence says something: a Keras that is told to trust the file runs its code."""
    import keras

    canary = str(tmp_path / "canary")
    function = eval(f"lambda x: (open({canary!r}, 'w').close(), x)[1]")
    network = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(function)])
    network.save(tmp_path / "model.keras")
    Path(canary).unlink()
    with pytest.raises(ModelError, match="Sequential"):
        read_network(tmp_path / "model.keras")
    assert not Path(canary).exists()
    keras.saving.load_model(tmp_path / "model.keras", safe_mode=False)(np.zeros((1, 2)))
    assert Path(canary).exists()


# --- what pronk writes


@pytest.mark.parametrize("alpha", [0.35, 1.4])
def test_graphs_of_pronk_pass(alpha):
    weights = random_backbone(alpha=alpha).weights
    head = np.zeros((weights["Conv_1"][0].shape[-1], 3), np.float32)
    check_onnx(write_model(weights, head, head[0], size=32, temperature=2))
    check_onnx(write_prefix(weights, size=32, cut="block_12_add"))


@pytest.mark.more
def test_quantised_graphs_pass(tmp_path):
    from onnxruntime import quantization

    (tmp_path / "model.onnx").write_bytes(WHOLE_ONNX)
    photos = iter([{"image": np.zeros((1, 32, 32, 3), np.uint8)}])
    reader = type("Reader", (quantization.CalibrationDataReader,), {"get_next": lambda self: next(photos, None)})
    quantization.quantize_static(tmp_path / "model.onnx", tmp_path / "int8.onnx", reader(), per_channel=True)
    check_onnx((tmp_path / "int8.onnx").read_bytes())


def test_a_network_of_pronk_opens(tmp_path, keras_file):
    from pronk.backbone.keras_network import load_network, save_network

    path = tmp_path / "model.keras"
    path.write_bytes(keras_file)
    network = load_network(path)
    assert network.output.shape == (None, 2)
    path.write_bytes(save_network(network))
    photos = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(load_network(path)(photos)), np.asarray(network(photos)))


def test_what_keras_cannot_open_is_refused(tmp_path, keras_file):
    from pronk.backbone.keras_network import load_network

    config = read_config(keras_file)
    config["config"]["layers"][-1]["config"]["activation"] = "no such thing"
    (tmp_path / "model.keras").write_bytes(rezip(keras_file, config=config))
    with pytest.raises(ModelError, match="Keras cannot open"):
        load_network(tmp_path / "model.keras")


@pytest.mark.more
def test_other_exports_of_the_network_pass(tmp_path, keras_file):
    import tensorflow as tf

    from pronk.backbone.keras_network import load_network

    (tmp_path / "model.keras").write_bytes(keras_file)
    folder = tmp_path / "saved_model"
    load_network(tmp_path / "model.keras").export(folder, format="tf_saved_model", verbose=False)
    check_saved_model(folder)
    model = tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert()
    check_tflite(model)
    rng = np.random.default_rng(0)
    program = (folder / "saved_model.pb").read_bytes()
    for check, data, count in ((check_tflite, model, 300), (check_program, program, 30)):
        assert fuzz(check, data, rng, count) > 0
    (folder / "saved_model.pb").write_bytes(program.replace(b"Softmax", b"PyFunc\0"))
    with pytest.raises(ModelError):
        check_saved_model(folder)


# --- files


def test_only_ordinary_files_are_read(tmp_path):
    file, link, pipe = (tmp_path / name for name in ("file", "link", "pipe"))
    file.write_bytes(b"content")
    link.symlink_to(file)
    os.mkfifo(pipe)
    assert read_limited(file) == b"content"
    for wrong in (link, pipe, tmp_path, tmp_path / "gone", tmp_path / "nul\0"):
        with pytest.raises(ModelError, match="no ordinary file"):
            read_limited(wrong)
    with file.open("wb") as sparse:
        sparse.truncate(MAX_BYTES + 1)
    with pytest.raises(ModelError, match=f"{MAX_BYTES + 1} bytes"):
        read_limited(file)


# --- ONNX


def graph_in(kind):
    inner = helper.make_graph([], "inner", [], [])
    values = {"If": {"then_branch": inner, "else_branch": inner}, "Add": {"body": inner}, "Mul": {"bodies": [inner]}}
    return make_onnx([helper.make_node(kind, ["image"], ["out"], **values[kind])])


def with_function():
    model = make_onnx()
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("", "Add", ["a"], ["b"], [], opsets))
    return model


def with_training():
    model = make_onnx()
    model.training_info.add()
    return model


def with_sparse():
    model = make_onnx()
    values, places = (helper.make_tensor(name, kind, [1], [1]) for name, kind in (("values", 1), ("places", 7)))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3]))
    return model


def with_opset(domain):
    model = make_onnx()
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


def with_setting(key):
    model = make_onnx()
    helper.set_model_props(model, {key: "x"})
    return model


def tensor(**changes):
    array = numpy_helper.from_array(np.zeros((2, 2), np.float32), "kernel")
    for name, value in changes.items():
        if isinstance(value, list):
            array.ClearField(name)
            getattr(array, name).extend(value)
        else:
            setattr(array, name, value)
    return array


def node(kind, **options):
    return make_onnx([helper.make_node(kind, ["image"], ["out"], **options)])


def dequantise(name):
    return helper.make_node("DequantizeLinear", [f"{name}8", "scale"], [name])


def of_constants(kind, *, dequantised=False, names=("a", "b")):
    """A small file that asks for a large array as soon as it is opened."""
    suffix, scale = "8" if dequantised else "", numpy_helper.from_array(np.float32(1), "scale")
    sides = {f"{names[0]}{suffix}": (9000, 1), f"{names[1]}{suffix}": (1, 9000)}
    arrays = [numpy_helper.from_array(np.zeros(shape, np.int8), name) for name, shape in sides.items()]
    # The constants are told from the whole graph, wherever in it their nodes are.
    nodes = [helper.make_node(kind, names, ["out"]), *(map(dequantise, names) if dequantised else ())]
    return make_onnx(nodes, [*arrays, scale])


def with_constant(kind, shape, *, dequantised=False):
    arrays = [
        numpy_helper.from_array(np.zeros(shape, np.int8), name) for name in ("a8" if dequantised else "a", "scale")
    ]
    nodes = [dequantise("a")] if dequantised else []
    return make_onnx([*nodes, helper.make_node(kind, ["image", "a"], ["out"])], arrays)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (make_onnx(arrays=[make_outside("weights.bin")]), "another file"),
        (node("Add", value=make_outside("weights.bin")), "an array inside a node"),
        (make_onnx(arrays=[tensor(data_location=1)]), "another place"),
        (node("Add", domain="com.microsoft"), "operators of 'com.microsoft'"),
        (node("Add", overload="other"), "overloaded"),
        (with_opset("com.example"), "operators of 'com.example'"),
        (with_function(), "functions of its own"),
        (with_training(), "training info"),
        (with_sparse(), "sparse"),
        (with_setting("ort_config"), "the setting 'ort_config'"),
        (graph_in("If"), "the operator 'If'"),
        (graph_in("Add"), "a graph inside"),
        (graph_in("Mul"), "a graph inside"),
        (node("Expand"), "the operator 'Expand'"),
        (node("Add", values=[make_outside("x")]), "a list of arrays"),
        (node("Conv", pads=[0, 0, 2**40, 0]), f"the setting 'pads' .*{2**40}"),
        (node("Conv", pads=[60000] * 4), "the setting 'pads'"),
        (node("Conv", kernel_shape=[17, 1]), "the setting 'kernel_shape'"),
        (node("Conv", strides=[1, 2**15]), "the setting 'strides'"),
        (node("Conv", group=-(2**40)), "the setting 'group'"),
        (node("Gemm", transA=1), "the setting 'transA'"),
        (node("MatMul"), "the operator 'MatMul'"),
        (of_constants("Add"), "constants where none belong"),
        (of_constants("Add", names=("a" * 70_000, "b" * 70_000)), "constants where none belong"),
        (of_constants("Gemm"), "constants where none belong"),
        (of_constants("Conv"), "constants where none belong"),
        (of_constants("Add", dequantised=True), "constants where none belong"),
        (with_constant("Add", (1,)), "constants where none belong"),
        (with_constant("Mul", (9000, 1)), r"a constant of shape \[9000, 1\]"),
        (with_constant("Mul", (9000, 1), dequantised=True), r"a constant of shape \[9000, 1\]"),
        (make_onnx([helper.make_node("Add", [], ["out"])]), "no input"),
        (make_onnx(arrays=[numpy_helper.from_array(np.zeros(2**14 + 1, np.uint8))]), "of type 2 and shape"),
        (node("Transpose", perm=[0] * 65), "more than 64 integers"),
        (make_onnx(arrays=[tensor(dims=[2, 3])]), r"shape \[2, 3\] with 4 numbers"),
        (make_onnx(arrays=[tensor(dims=[2**62, 2**62])]), "and shape"),
        (make_onnx(arrays=[tensor(dims=[-2, -2])]), r"shape \[-2, -2\]"),
        (make_onnx(arrays=[tensor(raw_data=b"12345")]), "5 bytes"),
        (make_onnx(arrays=[tensor(float_data=[1.0] * 4)]), "with 4 numbers"),
        (make_onnx(arrays=[tensor(int32_data=[1] * 4)]), "of field 5"),
        (make_onnx(arrays=[tensor(data_type=8)]), "type 8"),
        (make_onnx(arrays=[tensor(dims=[1] * 65)]), "more than 64"),
        (make_onnx(arrays=[helper.make_tensor("text", 8, [1], ["x"])]), "a form of its own"),
    ],
)
def test_an_onnx_model_of_other_means_is_refused(model, says):
    with pytest.raises(ModelError, match=says) as caught:
        check_onnx(model.SerializeToString())
    assert caught.value.hint


@pytest.mark.parametrize(
    "array",
    [
        helper.make_tensor("scale", 1, [3], [0.5, 1.5, 2.5]),
        helper.make_tensor("zero", 3, [2], [-128, 127]),
        helper.make_tensor("zero", 2, [], [200]),
        helper.make_tensor("shape", 7, [3], [2**40, -1, 0]),
        helper.make_tensor("none", 1, [0], []),
        tensor(data_location=0),
    ],
)
def test_arrays_in_fields_of_numbers_pass(array):
    check_onnx(make_onnx(arrays=[array]).SerializeToString())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no graph"),
        (WHOLE_ONNX * 2, "twice"),
        (WHOLE_ONNX + field(25, 0, 1), "functions"),
        (WHOLE_ONNX + field(99, 0, 1), "unknown field 99"),
        (field(7, 0, 1), "a number"),
        (field(7, 2, field(1, 2, field(4, 0, 1))), "a number"),
        (field(7, 2, field(1, 2, b"")), "the operator ''"),
        (field(7, 2, field(11, 2, b"") * 250_000), "more parts"),
        (field(7, 2, field(5, 2, field(2, 0, 1) + field(1, 2, b"\x01" * 1_000_000))), "more than 64"),
        (b"\x08\x09\x12\x05ORTM0" + WHOLE_ONNX[9:], "own format"),
    ],
)
def test_onnx_bytes_that_are_something_else_are_refused(data, says):
    with pytest.raises(ModelError, match=says):
        check_onnx(data)


@pytest.mark.parametrize("check", [check_onnx, check_tflite])
def test_a_huge_model_is_refused_unread(check, monkeypatch):
    monkeypatch.setattr("pronk.model.guards.files.MAX_BYTES", 99)
    with pytest.raises(ModelError, match="has 100 bytes"):
        check(bytes(100))


# --- .keras


def change_config(data, path, value):
    config = read_config(data)
    inner = config
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return rezip(data, config=config)


LAST = ("config", "layers", -1)
FIRST_CONV = ("config", "layers", 2, "config")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("class_name",), "Sequential", "Sequential"),
        (("module",), "os", "os>Functional"),
        (("registered_name",), "mine>Functional", "mine>Functional"),
        (("compile_config",), {"optimizer": "adam"}, "compiled"),
        (("code",), "x", "parts 'code'"),
        ((*LAST, "registered_name"), "Custom>Dense", "Custom"),
        ((*LAST, "module"), "keras.src.layers", r"keras\.src\.layers>Dense"),
        ((*LAST, "module"), ["keras.layers"], "Dense"),
        ((*LAST, "class_name"), ["Dense"], "object"),
        ((*LAST, "class_name"), "Lambda", "Lambda"),
        ((*LAST, "config"), "text", "Dense"),
        ((*LAST, "config", "activation"), {"class_name": "function", "config": "x"}, "None>function"),
        ((*LAST, "config", "activation"), {"module": "os"}, "os>None"),
        ((*LAST, "config", "kernel_initializer", "config", "seed"), {"class_name": "__numpy__"}, "__numpy__"),
        ((*LAST, "config", "dtype", "config"), {"name": "int8_from_float32"}, "int8_from_float32"),
        ((*LAST, "config", "units"), 10**12, "need 5124"),
        ((*LAST, "config", "units"), "many", "no size"),
        ((*LAST, "config", "units"), -1, "no size"),
        ((*LAST, "build_config"), {"input_shape": [None, 10**12]}, "its layers need"),
        ((*LAST, "build_config"), None, "damaged"),
        ((*FIRST_CONV, "kernel_size"), [10**5, 10**5], "its layers need"),
        ((*FIRST_CONV, "filters"), 10**9, "its layers need"),
        (("config", "layers"), "none", "damaged"),
        (("config", "layers"), [None] * 401, "401 layers"),
        (("config",), {}, "damaged"),
    ],
)
def test_another_config_is_refused(keras_file, path, value, says):
    with pytest.raises(ModelError, match=says) as caught:
        check_keras(change_config(keras_file, path, value))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (b"[" * 100_000, "too deep"),
        (b'{"a": ' * 40 + b"1" + b"}" * 40, "levels deep"),
        (b"{" + b" " * 2**20 + b"}", "bytes"),
        (b"[]", "no object"),
        (b"\xff", "damaged"),
        (b"9" * 5000, "damaged"),
    ],
)
def test_a_config_that_is_none_is_refused(keras_file, config, says):
    with pytest.raises(ModelError, match=says):
        check_keras(rezip(keras_file, config=config))


def test_a_network_in_the_network_is_refused(keras_file):
    config = read_config(keras_file)
    config["config"]["layers"].append(read_config(keras_file) | {"compile_config": {}})
    with pytest.raises(ModelError, match="within the network"):
        check_keras(rezip(keras_file, config=config))


def end_record(entries, size, start):
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, entries, entries, size, start, 0)


def rename(data, old, new):
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: b"", "no .keras file"),
        (lambda data: data + b"x", "members|directory|damaged"),
        (lambda data: b"PK\x03\x04" + data, "directory"),
        (lambda data: data[:1000], "members"),
        (lambda data: rezip(data, members={"assets/x": b""}), "4 members"),
        (lambda data: rezip(data, method=zipfile.ZIP_DEFLATED), "compressed"),
        (lambda data: rezip(data, members={"metadata.json": b'{"keras_version": 3}'}), "metadata"),
        (lambda data: rezip(data, members={"metadata.json": b'{"other": "x"}'}), "metadata"),
        (lambda data: rename(data, b"metadata.json", b"../adata.json"), "the members"),
        (lambda data: rename(data, b"metadata.json", b"config.json\0\0"), "the members|damaged"),
        (lambda data: data[:-22] + end_record(3, 2**31, 0), "members"),
        (lambda data: data[:-22] + end_record(65535, 2**12, 0), "65535 members"),
        (lambda data: data.replace(b"Functional", b"Functionel", 1), "CRC"),
    ],
)
def test_another_archive_is_refused(keras_file, change, says):
    with pytest.raises(ModelError, match=says):
        check_keras(change(keras_file))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("external_attr", (stat.S_IFLNK | 0o777) << 16, "link or encrypted"),
        ("compress_type", zipfile.ZIP_BZIP2, "compressed"),
    ],
)
def test_members_of_another_kind_are_refused(keras_file, name, value, says):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(keras_file)) as source, zipfile.ZipFile(buffer, "w") as archive:
        for member in source.infolist():
            copy = zipfile.ZipInfo(member.filename)
            setattr(copy, name, value)
            archive.writestr(copy, source.read(member))
    with pytest.raises(ModelError, match=says):
        check_keras(buffer.getvalue())


# --- HDF5


def soft(file, name):
    del file[name]
    file[name] = h5py.SoftLink("/kernel")


def twice(file, name):
    file["again"] = file[name]


def round_and_round(file, name):
    file["layers/round"] = file["layers"]


def never_written(file, name):
    del file[name]
    file.create_dataset(name, (1280, 2), "float32")


def odd_filter(file, name):
    del file[name]
    file.create_dataset(name, (1280, 2), "float32", compression="lzf")


def bomb_in_pieces(file, name):
    for number in range(3):
        shape = (2**24,)
        file.create_dataset(f"bomb{number}", shape, "float32", chunks=(2**20,), compression="gzip")


def named_type(file, name):
    file["type"] = np.dtype("float32")


def text(file, name):
    file["text"] = ["a", "b"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (link_outside, "ExternalLink"),
        (soft, "SoftLink"),
        (virtual, "another file"),
        (huge, "shape"),
        (twice, "twice"),
        (round_and_round, "twice"),
        (never_written, "0 bytes"),
        (odd_filter, "filters"),
        (bomb_in_pieces, "more than"),
        (named_type, "no array"),
        (text, "no array"),
    ],
)
def test_other_weights_are_refused(tmp_path, change, says):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.zeros((1280, 2), np.float32)
        file.create_dataset("layers/packed", data=np.zeros(999, np.float32), compression="gzip", shuffle=True)
    with open_h5(path.read_bytes()) as file:
        assert file["layers/dense/vars/0"].shape == (1280, 2)
    with h5py.File(path, "r+") as file:
        change(file, "layers/dense/vars/0")
    with pytest.raises(ModelError, match=says) as caught, open_h5(path.read_bytes()):
        pass
    assert caught.value.hint


def test_damaged_weights_are_refused_or_read():
    """In a child, since a fault of the library would end the tests."""
    code = """
import io, sys
import h5py, numpy as np
from helpers.fuzzing import mutate
from pronk.errors import ModelError
from pronk.backbone.h5 import open_h5
buffer, refused = io.BytesIO(), 0
with h5py.File(buffer, "w") as file:
    for number in range(6):
        file[f"layers/a{number}/vars/0"] = np.ones((3, 4), np.float32)
    file.create_dataset("packed", data=np.ones(999, np.float32), compression="gzip")
for number in range(2000):
    try:
        with open_h5(mutate(buffer.getvalue(), np.random.default_rng([5, number]), [buffer.getvalue()])):
            pass
    except ModelError:
        refused += 1
print(refused)
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 1000 < int(done.stdout) < 2000


# --- SavedModel, written field by field


def message(*fields):
    return b"".join(field(number, 0 if isinstance(value, int) else 2, value) for number, value in fields)


def entry(key, value):
    return message((1, key), (2, value))


def make_node(kind, *attributes):
    return message((1, b"node"), (2, kind), *((5, entry(b"key", attribute)) for attribute in attributes))


def make_function(name, *nodes):
    return message((1, message((1, name))), *((3, one) for one in nodes))


def naming(name):
    return message((10, message((1, name))))


SAVE = make_function(b"save", make_node(b"SaveV2"), make_node(b"MergeV2Checkpoints"))
SERVE = make_function(b"serve", make_node(b"Conv2D"), make_node(b"StatefulPartitionedCall", naming(b"inner")))
INNER = make_function(b"inner", make_node(b"Softmax"))
ROOT = message((4, message((1, b"_generic_user_object"))))


def make_program(
    *, nodes=(), functions=(SAVE, SERVE, INNER), concrete=(b"serve",), objects=(ROOT,), meta=(), library=(), saved=()
):
    top = [make_node(b"Placeholder"), make_node(b"StatefulPartitionedCall", naming(b"save")), *nodes]
    kept = message(*((1, one) for one in functions), *library)
    graph = message(*((1, one) for one in top), (2, kept))
    inside = message(*((1, one) for one in objects), *((2, entry(name, b"")) for name in concrete))
    start = (4, message((1, b"saved_model_main_op"), (2, b"")))
    return message((1, 1), (2, message((1, b""), (2, graph), start, (7, inside), *meta)), *saved)


def constant(*sides):
    shape = message(*((2, message((1, side))) for side in sides))
    return make_node(b"Const", message((8, message((1, 1), (2, shape)))))


def test_a_program_with_saving_that_nothing_calls_passes():
    check_program(make_program())
    check_program(make_program(nodes=[constant(3, 3)], objects=[ROOT, message((8, message((1, b"serve"))))]))


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (make_program(nodes=[make_node(b"ReadFile")]), "operator 'ReadFile'"),
        (make_program(nodes=[make_node(b"SaveV2")]), "operator 'SaveV2'"),
        (make_program(functions=[SERVE, make_function(b"inner", make_node(b"WriteFile"))]), "'WriteFile'"),
        (make_program(functions=[SERVE, make_function(b"inner", make_node(b"PyFunc"))]), "'PyFunc'"),
        (make_program(functions=[SAVE, make_function(b"f", make_node(b"Mul", naming(b"save")))]), "can call 'save'"),
        (make_program(concrete=[b"save"]), "can call 'save'"),
        (make_program(objects=[message((8, message((1, b"save"))))]), "can call 'save'"),
        (make_program(objects=[message((6, message((1, b"save"))))]), "can call 'save'"),
        (make_program(objects=[message((4, message((1, b"_tf_keras_layer"))))]), "_tf_keras_layer"),
        (make_program(objects=[message((5, b""))]), "a file beside"),
        (make_program(objects=[message((10, b""))]), "a resource"),
        (make_program(objects=[message((11, b""))]), "saving of its own"),
        (make_program(objects=[message((13, b"mine"))]), "registered class"),
        (make_program(meta=[(6, b"")]), "a file beside"),
        (make_program(meta=[(4, entry(b"table_initializer", b""))]), "table_initializer"),
        (make_program(library=[(2, b"")]), "gradients"),
        (make_program(saved=[(2, b"")]), "twice"),
        (make_program(nodes=[constant(2**20, 2**20)]), "a constant of shape"),
        (make_program(nodes=[make_node(b"Mul", message((1, message((9, b"save")))))]), "a list of functions"),
        (make_program(nodes=[make_node(b"Mul", message((10, message((1, b"f"), (2, b"")))))]), "of its own"),
        (make_program(nodes=[make_node(b"Const", message((8, message((14, b"")))))]), "a resource"),
        (message((1, 1)), "no program"),
        (message((2, message((2, b"")))), "no graph of objects"),
        (b"text", "damaged"),
    ],
)
def test_another_program_is_refused(program, says):
    with pytest.raises(ModelError, match=says) as caught:
        check_program(program)
    assert caught.value.hint


def write_saved_model(folder):
    for name in ("variables", "assets"):
        (folder / name).mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(make_program())
    for name in ("fingerprint.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        (folder / name).write_bytes(b"x")


@pytest.mark.parametrize(
    "name", ["saved_model.pbtxt", "saved_model.cpb", "assets/words.txt", "variables/x", "assets.extra/x", "debug/x"]
)
def test_a_folder_with_other_files_is_refused(tmp_path, name):
    folder = tmp_path / "saved_model"
    write_saved_model(folder)
    check_saved_model(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(ModelError, match=name.split("/", maxsplit=1)[0]):
        check_saved_model(folder)


@pytest.mark.parametrize("how", ["link", "linked folder", "linked whole", "large", "missing", "pipe"])
def test_a_folder_of_other_kinds_of_file_is_refused(tmp_path, how):
    folder = tmp_path / "saved_model"
    write_saved_model(folder)
    if how == "linked folder":
        (folder / "variables").rename(tmp_path / "elsewhere")
        (folder / "variables").symlink_to(tmp_path / "elsewhere")
    elif how == "linked whole":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    elif how == "large":
        (folder / "fingerprint.pb").write_bytes(bytes(5000))
    else:
        path = folder / "variables" / "variables.index"
        path.rename(tmp_path / "index")
        if how == "link":
            path.symlink_to(tmp_path / "index")
        elif how == "pipe":
            os.mkfifo(path)
    with pytest.raises(ModelError):
        check_saved_model(folder)


# --- LiteRT


def make_tflite(
    *, codes=((3, 3, None), (114, 114, None)), buffers=((0, 0),), shapes=((1, 32, 32, 3),), more=0, graphs=1
):
    """A small file of the schema: operator codes, one graph with tensors, buffers."""
    flatbuffers = pytest.importorskip("flatbuffers")
    builder = flatbuffers.Builder(0)

    def vector(offsets):
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def table(count, *slots):
        builder.StartObject(count)
        for write, slot, value, default in slots:
            getattr(builder, f"Prepend{write}Slot")(slot, value, default)
        return builder.EndObject()

    offset = "UOffsetTRelative"
    made_codes = []
    for old, new, custom in codes:
        name = [(offset, 1, builder.CreateString(custom), 0)] if custom else []
        made_codes.append(table(4, ("Int8", 0, old, 0), *name, ("Int32", 3, new, 0)))
    tensors = []
    for shape in shapes:
        builder.StartVector(4, len(shape), 4)
        for side in reversed(shape):
            builder.PrependInt32(side)
        tensors.append(table(11, (offset, 0, builder.EndVector(), 0)))
    held = [table(3, ("Uint64", 1, start, 0), ("Uint64", 2, size, 0)) for start, size in buffers]
    made_graphs = vector([table(5, (offset, 0, vector(tensors), 0))] * graphs)
    made_codes, held = vector(made_codes), vector(held)
    slots = [(offset, 1, made_codes, 0), (offset, 2, made_graphs, 0), (offset, 4, held, 0)]
    slots += [(offset, 8, vector([]), 0)] if more else []
    builder.Finish(table(10, ("Uint32", 0, 3, 0), *slots), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_a_small_tflite_passes():
    check_tflite(make_tflite())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"codes": [(32, 32, "FlexReadFile")]}, "operator 32 'FlexReadFile'"),
        ({"codes": [(3, 3, "mine")]}, "operator 3 'mine'"),
        ({"codes": [(118, 118, None)]}, "operator 118"),
        ({"codes": [(127, 129, None)]}, "operator 129"),
        ({"codes": [(3, 129, None)]}, "operator 129"),
        ({"codes": [(-1, -1, None)]}, "operator -1"),
        ({"codes": [(3, 3, None)] * 65}, "65 kinds"),
        ({"buffers": [(2**40, 5)]}, f"data at byte {2**40}"),
        ({"shapes": [(2**20, 2**20)]}, "shape"),
        ({"shapes": [(-1, 3)]}, "shape"),
        ({"more": 1}, "another file"),
        ({"graphs": 2}, "2 graphs"),
        ({"graphs": 0}, "0 graphs"),
    ],
)
def test_another_tflite_is_refused(options, says):
    with pytest.raises(ModelError, match=says) as caught:
        check_tflite(make_tflite(**options))
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\xff\xff\xff\xffTFL3", b"\x04\0\0\0TFL3", bytes(8)])
def test_tflite_bytes_that_are_something_else_are_refused(data):
    with pytest.raises(ModelError):
        check_tflite(data)


# --- damage


def fuzz(check, data, rng, count):
    """Damage a file at random; return how often it was refused."""
    refused = 0
    for _ in range(count):
        try:
            check(mutate(data, rng, [data]))
        except ModelError:
            refused += 1
    return refused


FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=5)
SMALL_FILES = {
    "onnx": (check_onnx, make_onnx(arrays=[tensor()]).SerializeToString()),
    "program": (check_program, make_program(nodes=[constant(3)])),
}


def damage(data, cut, flips):
    damaged = bytearray(data[: int(cut * len(data)) + 1])
    for place, bit in flips:
        damaged[int(place * len(damaged))] ^= 1 << bit
    return bytes(damaged)


@pytest.mark.parametrize("kind", SMALL_FILES)
@given(cut=st.one_of(st.just(1.0), st.floats(0, 1)), flips=FLIPS)
def test_damage_is_refused_or_harmless(kind, cut, flips):
    check, data = SMALL_FILES[kind]
    with contextlib.suppress(ModelError):
        check(damage(data, cut, flips))


def test_what_passes_is_harmless_to_the_onnx_package_too():
    """It reads some damaged files in its own way: nothing that was refused by us may hide in one that was not."""
    models = [
        make_onnx([helper.make_node(kind, ["image"], ["out"], domain=domain, to=1)], [array]).SerializeToString()
        for kind, domain in (("Cast", ""), ("Expand", ""), ("Cast", "com.microsoft"))
        for array in (tensor(), make_outside("x"))
    ]
    passed = 0
    for number in range(3000):
        rng = np.random.default_rng([3, number])
        if number % 2:
            data = mutate(models[number % 6], rng, models)
        else:
            data = damage(models[number % 6], 1.0, [(rng.random(), int(rng.integers(8)))])
        try:
            check_onnx(data)
            model = onnx.load_from_string(data)
        except Exception:  # refused by us, or by the package in a way of its own
            continue
        passed += 1
        for node in model.graph.node:
            assert node.op_type.encode() in OPERATORS
            assert node.domain in ("", "ai.onnx")
            assert not node.attribute or not any(one.graphs or one.HasField("g") for one in node.attribute)
        arrays = [*model.graph.initializer, *(one.t for node in model.graph.node for one in node.attribute)]
        assert not any(one.external_data or one.data_location for one in arrays)
        assert not any((model.functions, model.training_info, model.graph.sparse_initializer))
    assert passed > 50


@given(cut=st.one_of(st.just(1.0), st.floats(0, 1)), flips=FLIPS)
def test_a_damaged_tflite_is_refused_or_harmless(cut, flips):
    with contextlib.suppress(ModelError):
        check_tflite(damage(make_tflite(), cut, flips))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["config", "class_name", "x"]), inner),
    max_leaves=8,
)


def test_damage_to_whole_files_is_refused_or_harmless(keras_file):
    rng = np.random.default_rng(0)
    assert fuzz(check_onnx, WHOLE_ONNX, rng, 100) > 10
    assert fuzz(check_keras, keras_file, rng, 50) > 10
    config = json.dumps(read_config(keras_file)).encode()
    assert fuzz(lambda damaged: check_keras(rezip(keras_file, config=damaged)), config, rng, 100) > 10


# How long drawing takes tells of the machine's load, not of the code; as many examples are tried as before.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_json_in_the_config_is_refused_or_harmless(keras_file, data):
    config = inner = read_config(keras_file)
    for _ in range(data.draw(st.integers(0, 6))):
        steps = range(len(inner)) if isinstance(inner, list) else list(inner) if isinstance(inner, dict) else []
        if not steps:
            break
        step = data.draw(st.sampled_from(steps))
        if data.draw(st.booleans()):
            inner[step] = data.draw(JSON)
        inner = inner[step]
    with contextlib.suppress(ModelError):
        check_keras(rezip(keras_file, config=config))
