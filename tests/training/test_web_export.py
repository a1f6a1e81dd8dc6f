"""An export to web: a page that any web server gives out, and that answers in the visitor's browser."""

import base64
import functools
import hashlib
import io
import json
import shutil
import stat
import tarfile
import threading
import time
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.browser import DESK, PHONE, find_violations, notice, open_browser, read_text, say_what_is_missing, visit
from helpers.pictures import encode
from helpers.training import tiny_settings
from pronk.errors import ModelError, SettingsError
from pronk.model.bundle import open_bundle
from pronk.model.predictor import Predictor
from pronk.photos.decoding import decode, fit_pixels, load_pixels
from pronk.report.page_files import SHARED, read_page
from pronk.training import web_export, web_runtime
from pronk.training.export import export_model
from pronk.training.recipe import train
from pronk.training.web_export import FILES, load_runtime
from pronk.training.web_runtime import WebRuntime, find_browser

more = pytest.mark.more
in_browser = pytest.mark.skipif(bool(say_what_is_missing()), reason=say_what_is_missing())
PAGE_BYTES = 120_000  # beside the model and what runs it


@pytest.fixture(scope="module")
def run(tiny_photos, tiny_weights, tmp_path_factory):
    """A run with features of several blocks, so that the page has a distance and maps of several sides."""
    folder = tmp_path_factory.mktemp("web")
    settings = tiny_settings(tiny_weights, frozen_only=True)
    return train(tiny_photos, out=folder / "run", settings=settings, cache=folder / "cache").folder


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """The package's files in a folder, from the cache or by npm."""
    try:
        files = load_runtime()
    except ModelError as error:
        pytest.skip(f"no ONNX Runtime for browsers: {error}")
    folder = tmp_path_factory.mktemp("dist")
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def exported(run, runtime):
    return export_model(run, "web", runtime=runtime)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def host(exported):
    """A static web server without any header of its own, at its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(exported.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.address = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def chrome(host):
    """A browser of its own: what a page keeps in it is gone afterwards."""
    with open_browser() as browser:
        visit(browser, f"{host.address}/")
        until(browser, "return document.documentElement.dataset.ready")
        yield browser


def until(chrome, script, seconds=60):
    end = time.monotonic() + seconds
    while not (found := chrome.execute_script(script)):
        assert time.monotonic() < end, f"it did not come: {script}; the page says: {read_text(chrome)}"
        time.sleep(0.05)
    return found


def ask(chrome, *paths):
    """Choose files and return the verdicts, in the order of the files."""
    chrome.find_element("css selector", "#files").send_keys("\n".join(map(str, paths)))
    answered = "document.querySelectorAll('.card[data-state=done], .card[data-state=failed]')"
    until(chrome, f"return {answered}.length === {len(paths)}")
    return chrome.execute_script("return [...document.querySelectorAll('.card .verdict')].map(one => one.innerText)")


@more
@in_browser
def test_the_page_answers_what_the_model_answers(chrome, host, run, tiny_photos):
    photos, predictor = sorted(tiny_photos.rglob("*.png"))[::5], Predictor.load(run)
    verdicts = ask(chrome, *photos)
    for verdict, photo in zip(verdicts, photos, strict=True):
        prediction = predictor.predict_one(photo)
        assert verdict.split("\n")[0] == ("None of these" if prediction.unknown else prediction.label)
    assert notice(chrome, host=host.address) == [], "nothing is asked for elsewhere"
    assert find_violations(chrome) == []
    for width, dark in ((PHONE, True), (DESK, True), (PHONE, False)):
        visit(chrome, f"{host.address}/", width=width, dark=dark)
        until(chrome, "return document.documentElement.dataset.ready")
        assert find_violations(chrome) == []


@more
@in_browser
def test_it_works_when_the_network_is_gone(chrome, host, tiny_photos):
    until(chrome, "return navigator.serviceWorker.controller !== null")
    host.shutdown()
    host.server_close()
    chrome.get(f"{host.address}/")
    until(chrome, "return document.documentElement.dataset.ready")
    assert len(ask(chrome, next(tiny_photos.rglob("*.png")))) == 1


@more
@in_browser
def test_what_is_no_picture_says_so(chrome, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    assert ask(chrome, tmp_path / "notes.jpg") == ["No answer"]
    assert "browser cannot read the picture" in read_text(chrome)


CALL = """
const [module, name, given, done] = [...arguments];
const load = ({blob}) => new Blob([Uint8Array.from(atob(blob), one => one.charCodeAt(0))]);
import(`/page/${module}`).then(async (them) => {
    const told = await them[name](...given.map((one) => one.blob ? load(one) : one));
    done(told.square ? [...told.square] : [...told]);
}).catch((error) => done(String(error)));
"""


def packed(data):
    return base64.b64encode(data).decode()


@more
@in_browser
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_photo_becomes_the_same_square_as_in_training(chrome, fit):
    """Bit for bit where nothing is lost in the file; a JPEG within what its decoders differ by."""
    rng = np.random.default_rng(0)
    for width, height in ((31, 90), (200, 143), (64, 64), (333, 517), (700, 150)):
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        data = encode(picture, "PNG")
        told = chrome.execute_async_script(CALL, "pixels.js", "decode", [{"blob": packed(data)}, 32, fit])
        expected = fit_pixels(decode(data, min_side=32).image, size=32, fit=fit)
        assert np.abs(np.reshape(told, expected.shape) - expected.astype(int)).max() <= 1, (width, height)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
    data = encode(smooth, "JPEG", quality=90)
    told = chrome.execute_async_script(CALL, "pixels.js", "decode", [{"blob": packed(data)}, 32, fit])
    expected = fit_pixels(decode(data, min_side=32).image, size=32, fit=fit)
    assert np.abs(np.reshape(told, expected.shape) - expected.astype(int)).mean() < 2


@more
@in_browser
def test_half_precision_numbers_are_read(chrome):
    values = np.array([0, -0.0, 1, -2.5, 65504, 6e-8, 0.333], "<f2")
    told = chrome.execute_async_script(CALL, "answers.js", "readHalves", [packed(values.tobytes())])
    np.testing.assert_array_equal(told, values.astype(np.float64))


@more
def test_the_export_is_proven_in_a_browser_or_in_node(exported, run, runtime, tmp_path, monkeypatch):
    assert exported.gate is None
    assert exported.parity["agreement"] == 1
    assert exported.parity["ran_in"].startswith(("Chrom", "Google") if find_browser() else "Node")
    if find_browser() is None or not shutil.which("node"):
        pytest.skip("no second place to run it in")
    monkeypatch.setattr(web_runtime, "find_browser", lambda: None)
    again = export_model(run, "web", runtime=runtime, out=tmp_path / "by-node").parity
    assert again["ran_in"].startswith("Node")
    assert again["max_difference"] < 1e-4, "of the runtime alone, since Node decodes no photos"


@more
@in_browser
def test_photos_that_browsers_do_not_read_and_those_of_an_archive_are_asked_too(exported, tiny_photos, tmp_path):
    source = next(tiny_photos.rglob("*.png"))
    (tmp_path / "photo.tif").write_bytes(encode(Image.open(source), "TIFF"))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(source, "cold/photo.png")
    opened = WebRuntime(open_bundle(exported.folder))
    try:
        square = load_pixels(source, size=32)
        files = [tmp_path / "photo.tif", tmp_path / "photos.zip" / "cold" / "photo.png"]
        answers, _ = opened.run_files(files, [square] * 2)
    finally:
        opened.close()
    np.testing.assert_allclose(answers[0], answers[1], atol=5e-3)
    assert opened.not_decoded == 1


@more
def test_the_folder_holds_what_a_page_needs_and_no_photo_of_the_user(exported, run):
    bundle = open_bundle(exported.folder)
    assert {"index.html", "service.js", "page.json", "model.onnx", *(f"page/{name}" for name in FILES)} <= set(
        bundle.files
    )
    own = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (run / "model" / "golden").iterdir()}
    assert not own & set(bundle.files.values())
    page = [path for path in exported.folder.rglob("*") if path.is_file() and path.name not in FILES]
    page = [path for path in page if path.parent.name != "golden" and not path.name.startswith(("model.", "parity"))]
    assert sum(path.stat().st_size for path in page) < PAGE_BYTES
    index = (exported.folder / "index.html").read_text()
    assert "teach" not in index.casefold()
    assert "token" not in index
    listed = set(json.loads(f"[{(exported.folder / 'service.js').read_text().partition('[')[2].partition(']')[0]}]"))
    assert {name for name in bundle.files if not name.startswith(("golden", "LICENSE", "service"))} <= listed
    assert all(check["ok"] for check in Predictor.load(exported.folder).verify()), "it proves itself without a browser"


def test_modules_that_both_pages_share_import_only_each_other():
    alone = {path.name for path in (Path(web_export.__file__).parents[1] / "report" / "page" / "alone").iterdir()}
    for name in SHARED:
        for line in read_page()[name].decode().splitlines():
            if line.startswith("import"):
                assert line.split('"./')[1].split('"')[0] in {*SHARED, *alone}, name


# --- what runs the model


def fake_npm(folder, script):
    folder.mkdir(exist_ok=True)
    path = folder / "npm"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(folder)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package like the real one, which pronk takes for it, and an empty cache."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in FILES:
            info = tarfile.TarInfo(f"package/dist/{name}")
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    path = tmp_path / "package.tgz"
    path.write_bytes(buffer.getvalue())
    monkeypatch.setattr(web_export, "SHA512", base64.b64encode(hashlib.sha512(buffer.getvalue()).digest()).decode())
    monkeypatch.setenv("PRONK_CACHE", str(tmp_path / "cache"))
    return path


def test_the_package_is_fetched_once(package, tmp_path, monkeypatch):
    monkeypatch.setenv(
        "PATH", fake_npm(tmp_path / "bin", f'echo fetched >> {tmp_path}/log; /bin/cp {package} "$5/a.tgz"')
    )
    expected = {name: name.encode() for name in FILES}
    assert load_runtime() == expected
    assert load_runtime() == expected
    assert (tmp_path / "log").read_text() == "fetched\n"
    kept = next((tmp_path / "cache").rglob("*.tgz"))
    kept.write_bytes(b"torn")
    assert load_runtime() == expected, "a damaged copy is fetched again"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'npm error network down' >&2; exit 1", "network down"),
        ('echo x > "$5/a.tgz"', "not the package"),
        (None, "no npm"),
    ],
)
def test_what_cannot_be_fetched_is_named(script, says, package, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", fake_npm(tmp_path / "bin", script) if script else str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match=says) as caught:
        load_runtime()
    assert caught.value.hint


def test_a_folder_of_the_user_takes_its_place(tmp_path):
    with pytest.raises(ModelError, match=f"lacks {FILES[0]}"):
        load_runtime(tmp_path)
    for name in FILES:
        (tmp_path / name).write_bytes(b"x")
    assert load_runtime(tmp_path) == dict.fromkeys(FILES, b"x")


def test_it_is_for_pages_only(tiny_run, tmp_path):
    with pytest.raises(SettingsError, match="not for onnx-int8"):
        export_model(tiny_run.folder, "onnx-int8", runtime=tmp_path)


def test_without_a_browser_and_node_it_is_said_before_any_work(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="neither a browser nor Node"):
        export_model(tiny_run.folder, "web", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_page_that_never_answers_is_given_up(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(web_runtime, "SECONDS", 0.2)
    monkeypatch.setattr(web_runtime, "find_browser", lambda: shutil.which("cat"))
    monkeypatch.setattr(web_runtime, "QUIET", ("/dev/zero",))
    opened = WebRuntime(open_bundle(tiny_run.folder))
    with pytest.raises(ModelError, match="gives no answer"):
        opened.run(np.zeros((1, 32, 32, 3), np.uint8))
    opened.close()
