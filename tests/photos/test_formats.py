"""Which format bytes are, and whether they are all there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.bad_files import make_samples
from helpers.pictures import draw_picture, encode
from pronk.photos.formats import BY_PILLOW, FORMATS, recognise

OPTIONS = {"TIFF": {"compression": "tiff_lzw"}}
WHOLE = {kind: encode(draw_picture("circle", 3), kind, **OPTIONS.get(kind, {})) for kind in BY_PILLOW}


@pytest.mark.parametrize("kind", BY_PILLOW)
def test_a_whole_file_is_known_and_not_cut(kind):
    data, row = WHOLE[kind], FORMATS[kind]
    assert recognise(data) is row
    assert not row.is_cut(data)
    assert row.is_cut(data[: len(data) // 2])


def test_motor_order_and_big_tiff_are_tiff():
    assert {recognise(start + bytes(8)).name for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")} == {"TIFF"}


def test_formats_pronk_does_not_read_are_named():
    found = {sample.name: recognise(sample.data) for sample in make_samples() if "." in sample.name}
    unread = {"document.jpg": "PDF", "vector.jpg": "SVG", "script.jpg": "EPS", "layers.psd": "Photoshop"}
    unread |= {"camera.jxl": "JPEG XL", "old.jp2": "JPEG 2000", "site.ico": "icon"}
    assert {name: found[name].name for name in unread} == unread
    assert all(found[name].is_cut is None for name in unread)
    assert found["page.jpg"] is None


@given(st.binary(max_size=200), st.sampled_from(sorted(BY_PILLOW)), st.integers(0, 40))
def test_any_bytes_have_an_answer(data, kind, keep):
    data = WHOLE[kind][:keep] + data
    recognise(data)
    assert FORMATS[kind].is_cut(data) in (True, False)
