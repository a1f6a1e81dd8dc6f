"""Data sets and outside files that several tests share, and the lock of tests that must run alone."""

import contextlib
import os
import zipfile
from pathlib import Path

import hypothesis
import pytest

from helpers import FIXTURES
from helpers.browser import FAKE_CAMERA, open_browser, say_what_is_missing
from helpers.pictures import write_pictures
from helpers.sharing import locked
from helpers.training import bundle_copy, photos, tiny_photos, tiny_run, tiny_weights, whole_bundle, workers_inside  # noqa: F401 - fixtures
from pronk.model.predictor import Predictor

# A time limit for each example fails where the machine is busy, and says nothing about the code.
hypothesis.settings.register_profile("pronk", deadline=None)
hypothesis.settings.load_profile("pronk")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """With several workers: a test marked `alone` waits until no other test runs, and the others wait for it.

    Who waits holds the gate, so those who come later stand behind and nobody waits for ever.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    folder, is_alone = item.config.cache.mkdir("alone"), item.get_closest_marker("alone")
    with contextlib.ExitStack() as running:
        with locked(folder / "gate"):
            running.enter_context(locked(folder / "running", shared=not is_alone))
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep the tests out of the user's cache; processes that tests start inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRONK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Path(os.environ["PRONK_CACHE"])


@pytest.fixture(scope="session")
def served_model(tmp_path_factory):
    """The small model of the first format, made once for all; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("served")
    with zipfile.ZipFile(FIXTURES / "bundle-format-1.zip") as archive:
        archive.extractall(folder)
    return folder / "model"


@pytest.fixture(scope="session")
def predictor(served_model):
    """That model, opened in Python."""
    return Predictor.load(served_model)


@pytest.fixture(scope="session")
def inside(served_model):
    """A server with that model, within this process."""
    from helpers.asgi import serve_inside  # its packages are an extra

    with serve_inside(served_model) as server:
        yield server


@pytest.fixture(scope="session")
def chrome():
    """One browser for all pages, with a camera that shows a test picture."""
    if missing := say_what_is_missing():
        pytest.skip(missing)
    with open_browser(FAKE_CAMERA) as browser:
        yield browser


@pytest.fixture
def photo_folder(tmp_path):
    """Three classes of 12 pictures of 96 x 72 pixels, to read and to change."""
    return write_pictures(tmp_path / "photos")


@pytest.fixture(scope="session")
def real_photos():
    """The folder of class folders in $PRONK_PHOTOS."""
    return _outside_folder("PRONK_PHOTOS")


@pytest.fixture(scope="session")
def real_weights():
    """The folder of h5 files in $PRONK_WEIGHTS."""
    return _outside_folder("PRONK_WEIGHTS")


def _outside_folder(variable):
    named = os.environ.get(variable)
    if not named:
        pytest.skip(f"${variable} is not set")
    return Path(named)
