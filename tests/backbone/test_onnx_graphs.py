import numpy as np
import onnx
import onnxruntime
import pytest

from helpers.pictures import draw_picture
from helpers.training import build_prefix, lively_backbone, real_pixels
from pronk.analysis.head import Head, Lesson, fit_head
from pronk.backbone.architecture import FEATURES, HEAD_BLOCKS, pooled_sizes, split_blocks
from pronk.backbone.keras_network import build_network, build_suffix, set_head
from pronk.backbone.onnx_graphs import cut_shape, write_model, write_prefix, write_suffix
from pronk.backbone.weights import load_backbone
from pronk.config import BLOCKS, Settings
from pronk.model.formats.runtimes import OnnxRuntime

TOLERANCE = 1e-4


def pictures(size, count=4):
    kinds = ("circle", "square", "triangle")
    return np.stack([np.asarray(draw_picture(kinds[i % 3], i, (size, size))) for i in range(count)])


def run_prefix(model, pixels):
    """Run a prefix, the cut before it is rounded to float16 among its outputs."""
    graph = onnx.load_from_string(model)
    graph.graph.output.append(onnx.helper.make_tensor_value_info("cut_channels_last", onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    return session.run(["features", "cut", "cut_channels_last"], {"image": pixels})


def head_for(backbone, classes=3, *, blocks=HEAD_BLOCKS):
    rng = np.random.default_rng(1)
    kernel = rng.normal(0, 0.02, (sum(pooled_sizes(backbone.weights, blocks)), classes)).astype(np.float32)
    return Head(kernel, rng.normal(0, 0.1, classes).astype(np.float32))


def largest_difference(found, expected):
    """The largest difference, as a share of the largest value where that is above 1: float32 has 7 digits."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize(("alpha", "size", "read"), [(0.35, 96, "multi"), (1.0, 64, "top"), (1.4, 32, "multi")])
def test_model_says_what_keras_says(alpha, size, read):
    import keras

    backbone, blocks = lively_backbone(alpha), FEATURES[read]
    settings, head, pixels = Settings(image_size=size), head_for(backbone, blocks=blocks), pictures(size)
    network = build_network(backbone, blocks, classes=3, settings=settings)
    set_head(network, head)
    probabilities, pooled = keras.Model(network.input, [network.output, network.get_layer("dropout").input])(pixels)
    outputs = OnnxRuntime(write_model(backbone.weights, head, size=size)).run(pixels)
    assert largest_difference(outputs.probabilities, probabilities) < TOLERANCE
    assert largest_difference(outputs.features, pooled) < TOLERANCE


def test_every_prefix_says_what_keras_says():
    import keras

    backbone, pixels = lively_backbone(0.35, seed=3), pictures(64)
    network = build_network(backbone, HEAD_BLOCKS, classes=3, settings=Settings(image_size=64))
    layers = [network.get_layer(name).output for name in (*BLOCKS, "pool")]
    *cuts, pooled = keras.Model(network.input, layers)(pixels)
    sizes = dict(zip(HEAD_BLOCKS, pooled_sizes(backbone.weights), strict=True))
    for block, expected in zip(BLOCKS, cuts, strict=True):
        features, stored, exact = run_prefix(write_prefix(backbone.weights, size=64, cut=block), pixels)
        assert largest_difference(exact, expected) < TOLERANCE, block
        assert largest_difference(features, pooled) < TOLERANCE, block
        np.testing.assert_array_equal(stored, exact.astype(np.float16))
        assert stored.shape == (4, *cut_shape(backbone.weights, size=64, cut=block))
        suffix = onnxruntime.InferenceSession(write_suffix(backbone.weights, size=64, cut=block, blocks=HEAD_BLOCKS))
        changed = sum(sizes[name] for name in split_blocks(HEAD_BLOCKS, block)[1])
        assert largest_difference(suffix.run(None, {"cut": exact})[0], features[:, -changed:]) < TOLERANCE


@pytest.mark.more
def test_300_real_photos_say_what_keras_says(real_photos, real_weights):
    """And the activations at the cut, kept as float16, cost no accuracy."""
    backbone = load_backbone(str(real_weights / "mobilenet_v2_1.0_224_no_top.h5"))
    network = build_network(backbone, HEAD_BLOCKS, classes=2, settings=Settings(image_size=160))
    prefix, suffix = build_prefix(network, "block_12_add"), build_suffix(network, "block_12_add")
    photos = real_pixels(real_photos, 300, size=160)
    parts = np.split(photos, 6)
    cuts, pooled = (np.concatenate(arrays) for arrays in zip(*map(prefix.predict_on_batch, parts), strict=True))
    written = write_prefix(backbone.weights, size=160, cut="block_12_add")
    features, stored, exact = (
        np.concatenate(arrays) for arrays in zip(*(run_prefix(written, part) for part in parts), strict=True)
    )
    targets = np.arange(300) % 2  # the classes take turns
    fitted, judged = slice(0, 60), slice(60, None)
    head = fit_head(Lesson(pooled[fitted], targets[fitted], (), np.ones(60), classes=2), 0.3)
    set_head(network, head)
    model = OnnxRuntime(write_model(backbone.weights, head, size=160))
    fixed = pooled[:, : sum(pooled_sizes(backbone.weights, HEAD_BLOCKS[:1]))]
    expected = suffix.predict_on_batch([cuts, fixed])
    served = np.concatenate([model.run(part).probabilities for part in parts])
    for found, wanted in ((served, expected), (features, pooled), (exact, cuts)):
        assert largest_difference(found, wanted) < TOLERANCE
    rounded = suffix.predict_on_batch([stored.astype(np.float32), fixed])
    accuracies = [float((p[judged].argmax(axis=1) == targets[judged]).mean()) for p in (expected, rounded)]
    assert accuracies[0] > 0.8
    assert accuracies[1] >= accuracies[0]
    assert np.abs(expected - rounded).max() < 0.01
