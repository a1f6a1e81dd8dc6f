import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from helpers.wire import field, make_onnx, varint
from pronk.errors import ModelError
from pronk.model.first_format import read_head
from pronk.model.guards.protobuf import integers_of, read_fields

NUMBERS = st.integers(1, 2**29 - 1)
INTEGERS = st.integers(0, 2**64 - 1)


FIELDS = st.lists(
    st.one_of(
        st.tuples(NUMBERS, st.just(0), INTEGERS),
        st.tuples(NUMBERS, st.just(2), st.binary(max_size=40)),
    ),
    max_size=20,
)


def read(message):
    return [
        (number, 0, value) if isinstance(value, int) else (number, 2, bytes(value))
        for number, value in read_fields(message)
    ]


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


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(ModelError):
        assert len(read(data)) <= len(data)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"\x00\x01", "field number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "where 0 are left"),
        (b"\x0a\x05abcd", "of 5 bytes where 4 are left"),
        (b"\x09" + bytes(8), "wire type 1"),
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


def test_integers_packed_and_one_by_one():
    packed = memoryview(varint(300) + varint(2**64 - 1))
    assert integers_of({1: [7, packed]}, 1) == [7, 300, -1]
    with pytest.raises(ModelError, match="without an end"):
        integers_of({1: [memoryview(b"\x01\x80")]}, 1)


def make_model(*arrays):
    return make_onnx(arrays=arrays).SerializeToString()


def array(name, values):
    return numpy_helper.from_array(values, name)


KERNEL = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
OTHERS = array("Conv1/kernel", np.zeros((2, 3, 3, 3), np.float32)), array("head/bias", np.zeros(3, np.float32))


SIDES = b"".join(field(1, 0, 2**62) for _ in range(2))
HUGE = SIDES + field(2, 0, 1) + field(8, 2, b"head/kernel") + field(9, 2, bytes(8))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_the_kernel_of_the_head_comes_out(rows, columns, seed):
    kernel = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    found = read_head(make_model(OTHERS[0], array("head/kernel", kernel), OTHERS[1]))
    np.testing.assert_array_equal(found, kernel)
    assert found.dtype == np.float32
    assert found.flags.writeable


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (b"", "no graph"),
        (make_model(*OTHERS), "no array head/kernel"),
        (make_model(array("head/kernel", KERNEL), array("head/kernel", KERNEL)), "more than one array head/kernel"),
        (make_model(array("head/kernel", KERNEL)) * 2, "twice"),
        (make_model(array("head/kernel", KERNEL.astype(np.float64))), "type 11"),
        (make_model(array("head/kernel", KERNEL[0])), r"shape \[3\]"),
        (make_model(array("head/kernel", KERNEL[:0])), r"shape \[0, 3\]"),
        (make_model(helper.make_tensor("head/kernel", 1, (1, 2), [1.0, 2.0])), "no content of the head"),
        (field(7, 2, field(5, 2, HUGE)), "8 bytes"),
    ],
)
def test_a_model_without_a_readable_head_is_refused(model, says):
    with pytest.raises(ModelError, match=says) as caught:
        read_head(model)
    assert caught.value.hint
