"""What the network makes of a picture, however it is stored: real weights, from $PRONK_WEIGHTS."""

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from helpers.bad_files import STORED, exif
from helpers.pictures import encode
from pronk.backbone.onnx_graphs import write_prefix
from pronk.backbone.weights import load_backbone
from pronk.photos.decoding import load_pixels
from pronk.photos.drawing import draw_photo

pytestmark = pytest.mark.more


@pytest.fixture(scope="module")
def embed(real_weights):
    found = sorted(real_weights.glob("*0.35*.h5"))
    if not found:
        pytest.skip("$PRONK_WEIGHTS holds no weights of alpha 0.35")
    graph = write_prefix(load_backbone(str(found[0])).weights, size=224, cut="block_16_project_BN")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def embed(data):
        image = load_pixels(data, size=224)[None]
        vector = session.run(["features"], {"image": image})[0][0].astype(np.float64)
        return vector / np.linalg.norm(vector)

    return embed


def test_ways_to_store_a_picture_give_the_same_features(embed):
    photo = draw_photo("alpaca", np.random.default_rng(8), (480, 360))
    grey, veiled = photo.convert("L"), photo.copy()
    deep = np.asarray(grey).astype(np.uint16) * 257
    hole = Image.new("L", photo.size, 255)
    hole.paste(0, (0, 0, 90, 360))
    framed = Image.composite(photo, Image.new("RGB", photo.size, "white"), hole)
    veiled.putalpha(hole)
    palette, dotted = photo.quantize(128), photo.convert("1")
    opened = np.asarray(palette.convert("RGB")).copy()
    opened[np.asarray(palette) == 5] = 255
    lossless = [
        (photo, encode(photo, "WEBP", lossless=True)),
        (grey, encode(Image.fromarray(deep), "PNG")),
        (grey, encode(Image.fromarray(deep.astype(">u2")), "TIFF")),
        (framed, encode(veiled, "PNG")),
        (framed.convert("L"), encode(veiled.convert("LA"), "PNG")),
        (Image.fromarray(opened), encode(palette, "PNG", transparency=5)),
        (dotted, encode(dotted, "PNG")),
    ]
    lossy = [
        (photo, encode(photo, quality=92, progressive=True)),
        (photo, encode(photo, quality=92, subsampling=0)),
        (photo, encode(photo, quality=92, subsampling=2)),
        (photo, encode(photo.convert("CMYK"), quality=92)),
    ]
    for least, cases in ((0.999, lossless), (0.98, lossy)):
        for original, data in cases:
            assert embed(encode(original.convert("RGB"), "PNG")) @ embed(data) >= least


def test_orientations_give_the_same_features(embed):
    photo = np.asarray(draw_photo("bird", np.random.default_rng(9), (400, 300)))
    straight = embed(encode(Image.fromarray(photo), "PNG"))
    for orientation, turn in STORED.items():
        stored = Image.fromarray(np.ascontiguousarray(turn(photo)))
        assert embed(encode(stored, "PNG", exif=exif(orientation))) @ straight >= 0.999
        assert embed(encode(stored, quality=92, exif=exif(orientation))) @ straight >= 0.98
