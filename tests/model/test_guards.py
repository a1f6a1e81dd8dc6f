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
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from helpers import TESTS
from helpers.fuzzing import mutate
from helpers.training import digest_arrays, lively_backbone, write_h5
from helpers.wire import field, make_onnx
from pronk.analysis.head import Head
from pronk.backbone.architecture import pooled_sizes
from pronk.backbone.h5 import open_h5, read_weights
from pronk.backbone.onnx_graphs import write_model
from pronk.backbone.weights import random_backbone
from pronk.config import Settings
from pronk.errors import ModelError
from pronk.model.guards.files import MAX_BYTES, read_limited
from pronk.model.guards.onnx import OPERATORS, check_onnx
from pronk.model.guards.tflite import check_tflite

SMALL = lively_backbone(0.35)
KERNEL = np.zeros((1280, 2), np.float32)
WHOLE_ONNX = write_model(SMALL.weights, Head(KERNEL, KERNEL[0]), size=32)


def make_outside(location):
    """An array whose content lies in another file."""
    array = numpy_helper.from_array(np.zeros((2, 2), np.float32), "kernel")
    onnx.external_data_helper.set_external_data(array, location)
    array.ClearField("raw_data")
    array.data_location = TensorProto.EXTERNAL
    return array


@pytest.fixture(scope="module")
def keras_file(served_model):
    """The bytes of the .keras file of the first format."""
    return (served_model / "model.keras").read_bytes()


def rezip(data, *, members=None, method=zipfile.ZIP_STORED):
    """Write a .keras file again with other members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents |= members or {}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


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
    """Weights of 400 MiB in a file of 2 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as archive:
        for name in ("metadata.json", "config.json"):
            archive.writestr(name, source.read(name))
        member = zipfile.ZipInfo("model.weights.h5")
        member.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(member, "w") as file:
            for _ in range(400):
                file.write(b" " * 2**20)
    return buffer.getvalue()


def link(target):
    """Put a link in place of an array."""

    def change(file, name):
        del file[name]
        file[name] = target

    return change


def store(**options):
    """Store an array in another way."""

    def change(file, name):
        del file[name]
        file.create_dataset(name, **{"shape": (1280, 2), "dtype": "float32"} | options)

    return change


LINK_OUTSIDE, HUGE = link(h5py.ExternalLink("secret.h5", "/kernel")), store(shape=(10**6, 10**6), chunks=(64, 64))


def virtual(file, name):
    shape = file[name].shape
    layout = h5py.VirtualLayout(shape=shape, dtype="float32")
    layout[...] = h5py.VirtualSource("secret.h5", "kernel", shape=shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def naming(location):
    return make_onnx(arrays=[make_outside(location)]).SerializeToString()


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


# By name: the file, and its content made from the folder, canary and good file.
HOSTILE = {
    ".h5 Lambda": ("net.h5", lambda folder, canary, good: lambda_h5(folder, canary)),
    "ExternalLink": ("model.keras", lambda _, canary, good: with_weights(good, LINK_OUTSIDE)),
    "virtual dataset": ("model.keras", lambda _, canary, good: with_weights(good, virtual)),
    "shape bomb": ("model.keras", lambda _, canary, good: with_weights(good, HUGE)),
    "zip bomb": ("model.keras", lambda _, canary, good: bomb(good)),
    "zip-slip": ("model.keras", lambda _, canary, good: rezip(good, members={f"assets/../../{canary.name}": b"x"})),
    "pickle as .keras": ("model.keras", lambda _, canary, good: pickle.dumps(Payload(canary))),
    "pickle as .onnx": ("model.onnx", lambda _, canary, good: pickle.dumps(Payload(canary))),
    "pickle as .h5": ("net.h5", lambda _, canary, good: pickle.dumps(Payload(canary))),
    "ONNX data ../": ("model.onnx", lambda _, canary, good: naming("../secret.bin")),
    "ONNX data absolute": ("model.onnx", lambda folder, canary, good: naming(str(folder / "secret.bin"))),
    "ONNX data symlink": ("model.onnx", lambda _, canary, good: naming("link.bin")),
    "ONNX of constants": ("model.onnx", lambda _, canary, good: of_constants("Add").SerializeToString()),
}

CHILD = """
import json, os, sys, time
from pathlib import Path
from pronk.backbone.architecture import pooled_sizes
from pronk.backbone.h5 import open_h5, read_weights
from pronk.backbone.weights import load_backbone
from pronk.errors import ModelError
from pronk.model.guards.files import read_limited
from pronk.model.guards.onnx import check_onnx
SHARP = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.", "urllib.")
seen, reports = [], {}
sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(SHARP) else None)
for name, file in json.loads(sys.argv[1]).items():
    started, path, says = time.perf_counter(), Path(file), ""
    os.chdir(path.parent)
    try:
        if path.suffix == ".h5":
            load_backbone(str(path))
        elif path.suffix == ".keras":
            with open_h5(read_weights(read_limited(path))):
                pass
        else:
            check_onnx(read_limited(path))
    except ModelError as error:
        says = f"{error} / {error.hint}"
    reports[name] = {"says": says, "seconds": time.perf_counter() - started}
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({
    "reports": reports, "mib": int(peak.split()[1]) / 1024, "events": seen,
    "frameworks": sorted({"keras", "tensorflow", "torch", "jax"} & set(sys.modules)),
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")
def test_hostile_models_are_refused_and_do_nothing(tmp_path, keras_file):
    files, canary = {}, tmp_path / "canary"
    for number, (name, (file, make)) in enumerate(HOSTILE.items()):
        folder = tmp_path / str(number) / "model"
        folder.mkdir(parents=True)
        with h5py.File(folder / "secret.h5", "w") as secret:
            secret["kernel"] = np.zeros((1280, 2), np.float32)
        for secret in (folder / "secret.bin", folder.parent / "secret.bin"):
            secret.write_bytes(bytes(16))
        (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
        files[name] = str(folder / file)
        (folder / file).write_bytes(make(folder, canary, keras_file))
    before = sorted(tmp_path.rglob("*"))
    # The child's memory is measured from its own start: the parent's would count too in what the system keeps.
    command = [sys.executable, "-c", CHILD, json.dumps(files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    for name, report in found["reports"].items():
        assert "refused" in report["says"] or "holds no MobileNetV2" in report["says"], name
        assert report["says"].split(" / ")[1], name
        assert report["seconds"] <= 5, name
    assert found["mib"] <= 300
    assert found["frameworks"] == found["events"] == []
    assert sorted(tmp_path.rglob("*")) == before
    assert not canary.exists()


def test_the_configuration_of_a_network_is_never_read(tmp_path, keras_file):
    from pronk.backbone.keras_network import get_weights, load_network

    path, canary, settings = tmp_path / "model.keras", tmp_path / "canary", Settings(image_size=32)
    path.write_bytes(keras_file)
    wanted = get_weights(load_network(path, settings=settings))
    config = {"class_name": "Sequential", "config": {"layers": [lambda_layer(canary)]}}
    path.write_bytes(rezip(keras_file, members={"config.json": json.dumps(config).encode()}))
    for layer, arrays in get_weights(load_network(path, settings=settings)).items():
        assert digest_arrays(arrays) == digest_arrays(wanted[layer])
    assert not canary.exists()


@pytest.mark.parametrize(
    "change", [lambda file, name: file.pop("layers/conv2d_3"), store(shape=(3, 2), data=np.zeros((3, 2)))]
)
def test_weights_of_another_network_are_refused(tmp_path, keras_file, change):
    from pronk.backbone.keras_network import load_network

    (tmp_path / "model.keras").write_bytes(with_weights(keras_file, change))
    with pytest.raises(ModelError, match="MobileNetV2 with a head"):
        load_network(tmp_path / "model.keras", settings=Settings(image_size=32))


# --- files


def test_only_ordinary_files_are_read(tmp_path):
    file, link, pipe = (tmp_path / name for name in ("file", "link", "pipe"))
    file.write_bytes(b"content")
    link.symlink_to(file)
    os.mkfifo(pipe)
    assert read_limited(file) == b"content"
    for wrong in (link, pipe, tmp_path, tmp_path / "gone", tmp_path / "nul\0"):
        with pytest.raises(ModelError, match="not an ordinary file"):
            read_limited(wrong)
    with file.open("wb") as sparse:
        sparse.truncate(MAX_BYTES + 1)
    with pytest.raises(ModelError, match=f"{MAX_BYTES + 1} bytes"):
        read_limited(file)


# --- ONNX


INNER = helper.make_graph([], "inner", [], [])


def changed(change):
    model = make_onnx()
    change(model)
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


def test_what_pronk_and_the_quantiser_write_passes():
    weights = random_backbone(alpha=1.4).weights
    head = np.zeros((sum(pooled_sizes(weights)), 3), np.float32)
    check_onnx(write_model(weights, Head(head, head[0]), size=32, temperature=2))
    typed = [helper.make_tensor(str(kind), kind, [2], [1, 2]) for kind in (1, 2, 3, 7)]
    check_onnx(make_onnx(arrays=[*typed, helper.make_tensor("none", 1, [0], [])]).SerializeToString())


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


def enlarging(*scales, times=1, **options):
    resize = helper.make_node("Resize", ["image", "", "scales"], ["out"], **options)
    return make_onnx([resize] * times, [numpy_helper.from_array(np.array(scales, np.float32), "scales")])


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (enlarging(1, 1, 2, 4), "enlarges 1 array"),
        (enlarging(1, 1, 2, 2, times=3), "enlarges 3 arrays"),
        (enlarging(1, 1, 2, 2, mode="cubic"), "the setting 'mode' 'cubic'"),
        (enlarging(1, 1, 2, 2, axes=[2, 3]), "the setting 'axes'"),
        (make_onnx(arrays=[make_outside("weights.bin")]), "another file"),
        (make_onnx(arrays=[tensor(data_location=1)]), "another place"),
        (node("Add", value=make_outside("weights.bin")), "an array inside a node"),
        (node("Add", values=[make_outside("x")]), "the unknown field 10"),
        (node("Add", domain="com.microsoft"), "operators of 'com.microsoft'"),
        (node("Add", overload="other"), "overloaded"),
        (changed(lambda model: model.opset_import.append(helper.make_opsetid("com.example", 1))), "of 'com.example'"),
        (changed(lambda model: model.functions.add()), "functions of its own"),
        (changed(lambda model: model.training_info.add()), "training info"),
        (changed(lambda model: model.graph.sparse_initializer.add()), "sparse"),
        (changed(lambda model: helper.set_model_props(model, {"ort_config": "x"})), "the setting 'ort_config'"),
        (node("If", then_branch=INNER), "the operator 'If'"),
        (node("Add", body=INNER), "a graph inside"),
        (node("Conv", pads=[0, 0, 2**40, 0]), f"the setting 'pads' .*{2**40}"),
        (node("Conv", pads=[60000] * 4), "the setting 'pads'"),
        (node("Gemm", transA=1), "the setting 'transA'"),
        (of_constants("Add"), "constants where none belong"),
        (of_constants("Add", names=("a" * 70_000, "b" * 70_000)), "constants where none belong"),
        (of_constants("Add", dequantised=True), "constants where none belong"),
        (with_constant("Add", (1,)), "constants where none belong"),
        (with_constant("Mul", (9000, 1)), r"a constant of shape \[9000, 1\]"),
        (with_constant("Mul", (9000, 1), dequantised=True), r"a constant of shape \[9000, 1\]"),
        (make_onnx([helper.make_node("Add", [], ["out"])]), "no input"),
        (make_onnx(arrays=[numpy_helper.from_array(np.zeros(2**14 + 1, np.uint8))]), "of type 2 and shape"),
        (node("Transpose", perm=[0] * 65), "more than 64 integers"),
        (make_onnx(arrays=[tensor(dims=[2, 3])]), r"shape \[2, 3\] in 16 bytes"),
        (make_onnx(arrays=[tensor(dims=[2**62, 2**62])]), "and shape"),
        (make_onnx(arrays=[tensor(float_data=[1.0] * 4)]), "in 2 fields"),
        (make_onnx(arrays=[tensor(int32_data=[1] * 4)]), "of field 5"),
        (make_onnx(arrays=[helper.make_tensor("text", 8, [1], ["x"])]), "the unknown field 6"),
    ],
)
def test_an_onnx_model_of_other_means_is_refused(model, says):
    with pytest.raises(ModelError, match=says) as caught:
        check_onnx(model.SerializeToString())
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no graph"),
        (WHOLE_ONNX * 2, "twice"),
        (WHOLE_ONNX + field(25, 0, 1), "functions"),
        (WHOLE_ONNX + field(99, 0, 1), "unknown field 99"),
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
    monkeypatch.setattr(f"{check.__module__}.MAX_BYTES", 99)
    with pytest.raises(ModelError, match="has 100 bytes"):
        check(bytes(100))


# --- .keras


def end_record(entries, size, start):
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, entries, entries, size, start, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: b"", "not a .keras file"),
        (lambda data: data + b"x", "members|directory|damaged"),
        (lambda data: b"PK\x03\x04" + data, "directory"),
        (lambda data: data[:1000], "members"),
        (lambda data: rezip(data, method=zipfile.ZIP_DEFLATED), "compressed"),
        (lambda data: data.replace(b"metadata.json", b"../adata.json"), "the members"),
        (lambda data: data.replace(b"metadata.json", b"config.json\0\0"), "the members|damaged"),
        (lambda data: data[:-22] + end_record(3, 2**31, 0), "members"),
        (lambda data: data[:-22] + end_record(65535, 2**12, 0), "65535 members"),
        (lambda data: data.replace(b"\x89HDF", b"\x89HDG", 1), "CRC"),
    ],
)
def test_another_archive_is_refused(keras_file, change, says):
    with pytest.raises(ModelError, match=says):
        read_weights(change(keras_file))


def test_a_link_in_place_of_the_weights_is_refused(keras_file):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(keras_file)) as source, zipfile.ZipFile(buffer, "w") as archive:
        for member in source.infolist():
            copy = zipfile.ZipInfo(member.filename)
            copy.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(copy, source.read(member))
    with pytest.raises(ModelError, match="link or encrypted"):
        read_weights(buffer.getvalue())


# --- HDF5


def bomb_in_pieces(file, name):
    for number in range(3):
        shape = (2**24,)
        file.create_dataset(f"bomb{number}", shape, "float32", chunks=(2**20,), compression="gzip")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (LINK_OUTSIDE, "ExternalLink"),
        (link(h5py.SoftLink("/kernel")), "SoftLink"),
        (virtual, "another file"),
        (store(external=[("secret.bin", 0, 4 * 1280 * 2)]), "another file"),
        (HUGE, "shape"),
        (lambda file, name: file.__setitem__("again", file[name]), "twice"),
        (lambda file, name: file.__setitem__("layers/round", file["layers"]), "twice"),
        (store(), "0 bytes"),
        (store(compression="lzf"), "filters"),
        (bomb_in_pieces, "more than"),
        (lambda file, name: file.__setitem__("type", np.dtype("float32")), "not an array"),
        (lambda file, name: file.__setitem__("text", ["a", "b"]), "not an array"),
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
sys.path.insert(0, sys.argv[1])
import h5py, numpy as np
from helpers.fuzzing import mutate
from pronk.errors import ModelError
from pronk.backbone.architecture import pooled_sizes
from pronk.backbone.h5 import open_h5
buffer, refused = io.BytesIO(), 0
with h5py.File(buffer, "w") as file:
    for number in range(6):
        file[f"layers/a{number}/vars/0"] = np.ones((3, 4), np.float32)
    file.create_dataset("packed", data=np.ones(999, np.float32), compression="gzip")
for number in range(600):
    try:
        with open_h5(mutate(buffer.getvalue(), np.random.default_rng([5, number]), [buffer.getvalue()])):
            pass
    except ModelError:
        refused += 1
print(refused)
"""
    command = [sys.executable, "-c", code, TESTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 300 < int(done.stdout) < 600


# --- LiteRT


def make_tflite(
    *, codes=((3, 3, None), (114, 114, None)), buffers=((0, 0),), shapes=((1, 32, 32, 3),), sides=(56, 56), **counts
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
    size = builder.CreateByteVector(struct.pack(f"<{len(sides)}i", *sides))
    held.append(table(3, (offset, 0, size, 0)))
    tensors.append(table(11, ("Uint32", 2, len(held) - 1, 0)))
    inputs = builder.CreateNumpyVector(np.array([0, len(tensors) - 1], np.int32))
    enlarging = table(5, ("Uint32", 0, len(made_codes), 0), (offset, 1, inputs, 0))
    made_codes.append(table(4, ("Int8", 0, 23, 0)))
    made_graphs = vector(
        [table(5, (offset, 0, vector(tensors), 0), (offset, 3, vector([enlarging]), 0))] * counts.get("graphs", 1)
    )
    made_codes, held = vector(made_codes), vector(held)
    slots = [(offset, 1, made_codes, 0), (offset, 2, made_graphs, 0), (offset, 4, held, 0)]
    slots += [(offset, 8, vector([]), 0)] if counts.get("more") else []
    builder.Finish(table(10, ("Uint32", 0, 3, 0), *slots), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"codes": [(32, 32, "FlexReadFile")]}, "operator 32 'FlexReadFile'"),
        ({"codes": [(3, 3, "mine")]}, "operator 3 'mine'"),
        ({"codes": [(3, 129, None)]}, "operator 129"),
        ({"codes": [(-1, -1, None)]}, "operator -1"),
        ({"codes": [(3, 3, None)] * 65}, "66 kinds"),
        ({"buffers": [(2**40, 5)]}, f"data at byte {2**40}"),
        ({"shapes": [(2**20, 2**20)]}, "shape"),
        ({"shapes": [(-1, 3)]}, "shape"),
        ({"sides": (56, 2**20)}, "by any amount"),
        ({"sides": ()}, "by any amount"),
        ({"more": 1}, "another file"),
        ({"graphs": 2}, "2 graphs"),
    ],
)
def test_another_tflite_is_refused(options, says):
    check_tflite(make_tflite())
    with pytest.raises(ModelError, match=says) as caught:
        check_tflite(make_tflite(**options))
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\xff\xff\xff\xffTFL3", b"\x04\0\0\0TFL3", bytes(8)])
def test_tflite_bytes_that_are_something_else_are_refused(data):
    with pytest.raises(ModelError):
        check_tflite(data)


# --- damage


FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=5)


@given(cut=st.one_of(st.just(1.0), st.floats(0, 1)), flips=FLIPS)
def test_damage_is_refused_or_harmless(cut, flips):
    small = make_onnx(arrays=[tensor()]).SerializeToString()
    for check, data in ((check_onnx, small), (check_tflite, make_tflite())):
        damaged = bytearray(data[: int(cut * len(data)) + 1])
        for place, bit in flips:
            damaged[int(place * len(damaged))] ^= 1 << bit
        with contextlib.suppress(ModelError):
            check(bytes(damaged))


def test_what_passes_is_harmless_to_the_onnx_package_too():
    """It reads some damaged files in its own way: nothing that was refused by us may hide in one that was not."""
    models = [
        make_onnx([helper.make_node(kind, ["image"], ["out"], domain=domain, to=1)], [array]).SerializeToString()
        for kind, domain in (("Cast", ""), ("Expand", ""), ("Cast", "com.microsoft"))
        for array in (tensor(), make_outside("x"))
    ]
    passed = 0
    for number in range(3000):
        rng, data = np.random.default_rng([3, number]), bytearray(models[number % 6])
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        try:
            check_onnx(bytes(data))
            model = onnx.load_from_string(bytes(data))
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


def test_damage_to_a_keras_file_is_refused_or_harmless(keras_file):
    rng, refused = np.random.default_rng(0), 0
    for _ in range(50):
        try:
            read_weights(mutate(keras_file, rng, [keras_file]))
        except ModelError:
            refused += 1
    assert refused > 10
