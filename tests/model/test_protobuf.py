import contextlib
import tracemalloc

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from helpers.fuzzing import mutate
from helpers.wire import field, varint
from pronk.errors import ModelError
from pronk.model.guards.protobuf import only, read_fields, read_integers, read_parts
from pronk.model.head_weights import read_head

NUMBERS = st.integers(1, 2**29 - 1)
INTEGERS = st.integers(0, 2**64 - 1)


FIELDS = st.lists(
    st.one_of(
        st.tuples(NUMBERS, st.just(0), INTEGERS),
        st.tuples(NUMBERS, st.just(1), st.binary(min_size=8, max_size=8)),
        st.tuples(NUMBERS, st.just(2), st.binary(max_size=40)),
        st.tuples(NUMBERS, st.just(5), st.binary(min_size=4, max_size=4)),
    ),
    max_size=20,
)


def read(message):
    return [
        (number, kind, value if isinstance(value, int) else bytes(value))
        for number, kind, value in read_fields(message)
    ]


# --- fields


@given(FIELDS)
def test_what_was_written_is_read(fields):
    assert read(b"".join(field(*one) for one in fields)) == fields


@given(FIELDS.filter(bool), st.data())
def test_a_field_that_is_cut_off_is_refused(fields, data):
    whole = b"".join(field(*one) for one in fields[:-1])
    last = field(*fields[-1])
    cut = data.draw(st.integers(1, len(last) - 1))
    with pytest.raises(ModelError, match="damaged"):
        read(whole + last[:cut])


@given(st.binary(max_size=300), st.integers(0, 20))
def test_any_bytes_are_read_or_refused(data, number):
    for reader in (read, lambda message: list(read_parts(message, number)), lambda m: list(read_integers(m, number))):
        with contextlib.suppress(ModelError):
            assert len(reader(data)) <= len(data)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"\x00\x01", "field number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "where 0 are left"),
        (b"\x0a\x05abcd", "of 5 bytes where 4 are left"),
        (b"\x09" + bytes(7), "of 8 bytes where 7 are left"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "without an end"),
        (b"\x80\x80\x80\x80\x80\x01\x00", "without an end"),
        (b"\xf8\xff\xff\xff\x7f\x00", "field number"),
        (b"\x80", "without an end"),
    ],
)
def test_what_is_wrong_is_named(message, says):
    with pytest.raises(ModelError, match=says):
        read(message)


def test_numbers_may_be_longer_than_need_be():
    assert read(b"\x88\x00\x83\x80\x00") == [(1, 0, 3)]


def test_integers_packed_and_one_by_one():
    assert list(read_integers(field(1, 0, 7) + field(2, 0, 9) + field(1, 2, varint(300) + varint(2**64 - 1)), 1)) == [
        7, 300, 2**64 - 1,
    ]  # fmt: skip
    assert list(read_integers(field(1, 2, b""), 1)) == []
    for wrong in (field(1, 5, bytes(4)), field(1, 1, bytes(8)), field(1, 2, b"\x01\x80")):
        with pytest.raises(ModelError):
            list(read_integers(wrong, 1))


def test_parts_are_views_of_the_message():
    message = field(3, 2, b"abc") + field(4, 0, 1)
    (part,) = read_parts(message, 3)
    assert part.obj is message
    with pytest.raises(ModelError, match="field 4 is a number"):
        list(read_parts(message, 4))


def test_only_one_is_one():
    assert only(iter([5]), "thing") == 5
    with pytest.raises(ModelError, match="no thing"):
        only([], "thing")
    with pytest.raises(ModelError, match="more than one thing"):
        only([1, 2], "thing")


def test_many_fields_take_no_memory():
    message = field(1, 0, 0) * 20_000 + field(2, 2, b"") * 20_000
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_fields(message)) == 40_000
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


# --- the head of a model


def make_model(*arrays):
    """A whole ONNX file around some initializers."""
    node = helper.make_node("Identity", ["image"], ["probabilities"], name="probabilities")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("image", "probabilities")]
    graph = helper.make_graph([node], "pronk", value[:1], value[1:], [*arrays])
    return helper.make_model(graph, producer_name="pronk").SerializeToString()


def array(name, values):
    return numpy_helper.from_array(values, name)


KERNEL = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
OTHERS = array("Conv1/kernel", np.zeros((2, 3, 3, 3), np.float32)), array("head/bias", np.zeros(3, np.float32))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_the_kernel_of_the_head_comes_out(rows, columns, seed):
    kernel = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    found = read_head(make_model(OTHERS[0], array("head/kernel", kernel), OTHERS[1]))
    np.testing.assert_array_equal(found, kernel)
    assert found.dtype == np.float32
    assert found.flags.writeable


def test_shapes_may_be_packed():
    tensor = field(1, 2, b"\x02\x01") + field(2, 0, 1) + field(8, 2, b"head/kernel") + field(9, 2, bytes(8))
    assert read_head(field(7, 2, field(5, 2, tensor))).shape == (2, 1)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (b"", "no graph"),
        (make_model(*OTHERS), "no array head/kernel"),
        (make_model(array("head/kernel", KERNEL), array("head/kernel", KERNEL)), "more than one array head/kernel"),
        (make_model(array("head/kernel", KERNEL)) * 2, "more than one graph"),
        (make_model(array("head/kernel", KERNEL.astype(np.float64))), "type 11"),
        (make_model(array("head/kernel", KERNEL.astype(np.int8))), "type 3"),
        (make_model(array("head/kernel", KERNEL[0])), r"shape \[3\]"),
        (make_model(array("head/kernel", KERNEL[None, None])), r"shape \[1, 1, 5\]"),
        (make_model(array("head/kernel", KERNEL[:0])), r"shape \[0, 3\]"),
        (make_model(array("head/kernel", np.full((2, 2), np.nan, np.float32))), "not finite"),
        (make_model(helper.make_tensor("head/kernel", 1, (1, 2), [1.0, 2.0])), "no content of the head"),
    ],
)
def test_a_model_without_a_readable_head_is_refused(model, says):
    with pytest.raises(ModelError, match=says) as caught:
        read_head(model)
    assert caught.value.hint


def test_a_shape_of_any_size_is_refused_at_once():
    huge = b"".join(field(1, 0, 2**62) for _ in range(2))
    tensor = huge + field(2, 0, 1) + field(8, 2, b"head/kernel") + field(9, 2, bytes(8))
    with pytest.raises(ModelError, match="8 bytes"):
        read_head(field(7, 2, field(5, 2, tensor)))


def fuzz(numbers):
    """Damage a model at random: it is refused, or the head is what the onnx package reads, where that reads it."""
    model, refused = make_model(OTHERS[0], array("head/kernel", KERNEL), OTHERS[1]), 0
    for number in numbers:
        damaged = mutate(model, np.random.default_rng([11, number]), [model])
        try:
            found = read_head(damaged)
        except ModelError:
            refused += 1
            continue
        try:
            arrays = {one.name: one for one in onnx.load_from_string(damaged).graph.initializer}
        except Exception:  # it looks at parts of the file that hold no head
            continue
        np.testing.assert_array_equal(found, numpy_helper.to_array(arrays["head/kernel"]))
    return refused


def test_damaged_models_are_refused_or_read_alike():
    assert 200 < fuzz(range(1000)) < 1000


@pytest.mark.more
def test_many_damaged_models_are_refused_or_read_alike():
    assert fuzz(range(1000, 61_000)) > 10_000


def test_damage_to_a_real_model_is_no_fault_of_ours(whole_bundle):
    model = (whole_bundle / "model.onnx").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(model)
        places = rng.integers(0, len(model), 200)
        damaged[int(rng.integers(len(model))) :] = (
            b"" if rng.random() < 0.5 else damaged[int(rng.integers(len(model))) :]
        )
        for place in places[places < len(damaged)]:
            damaged[place] ^= 1 << int(rng.integers(8))
        try:
            assert read_head(bytes(damaged)).ndim == 2
        except ModelError:
            continue
