import contextlib
import dataclasses

import numpy as np
import pytest

from helpers.interpreters import modules_after
from pronk.analysis.calibration import Unknown
from pronk.analysis.novelty import fit_novelty
from pronk.errors import ModelError
from pronk.model.bundle import open_bundle, open_runtime, write_bundle
from pronk.model.formats.runtimes import OnnxRuntime
from pronk.model.formats.table import FORMATS
from pronk.model.predictor import Predictor


def pixels(count):
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_outputs_have_the_shapes_of_the_contract(whole_bundle):
    outputs = open_runtime(open_bundle(whole_bundle)).run(pixels(3), heat=True)
    assert outputs.probabilities.shape == (3, 2)
    assert outputs.features.shape == (3, 1280)
    assert outputs.heat.shape == (3, 1, 1, 2)
    assert {array.dtype for array in vars(outputs).values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(outputs.probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x07" * 50])
def test_bytes_that_are_no_model_are_an_error(data):
    with pytest.raises(ModelError, match="cannot open the model"):
        OnnxRuntime(data)


@pytest.mark.parametrize("name", ["savedmodel", "keras"])
def test_an_export_that_only_its_framework_opens_says_what_to_name_instead(bundle_copy, name):
    bundle = open_bundle(bundle_copy)
    contents = {f"{FORMATS[name].path}/x" if name == "savedmodel" else FORMATS[name].path: b"x"}
    folder = bundle_copy.parent / "exports" / name
    write_bundle(folder, contents, classes=bundle.classes, size=32, fit="crop", weights={}, runtime=name)
    for use in (Predictor.load, lambda model: open_runtime(open_bundle(model))):
        with pytest.raises(ModelError, match=f"an export to {name}, which pronk writes and does not open") as caught:
            use(folder)
        assert "onnx-int8 or litert" in caught.value.hint


def test_opening_a_folder_imports_no_runtime(whole_bundle):
    code = "import sys; from pronk.model.bundle import open_bundle; open_bundle(sys.argv[1])"
    assert "onnxruntime" not in modules_after(code, whole_bundle)


def test_a_distance_for_other_features_is_refused(whole_bundle):
    bundle = open_bundle(whole_bundle)
    for features, fits in ((1280, True), (64, False)):
        unknown = Unknown(fit_novelty(np.eye(4, features), np.arange(4) % 2), 0.5, 0.95, 49)
        changed = dataclasses.replace(bundle, unknown=unknown)
        with contextlib.nullcontext() if fits else pytest.raises(ModelError, match=r"does not fit its model\.json"):
            open_runtime(changed)
