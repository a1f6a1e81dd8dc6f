"""A run's model + the page + ONNX Runtime for browsers -> a folder that any web server can give out."""

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pronk.errors import ModelError
from pronk.model.bundle import Bundle
from pronk.model.description import describe_bundle
from pronk.report.page_files import write_lone_page
from pronk.storage.cache import CacheKind, open_cache
from pronk.storage.files import write_atomically

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # of the package
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
LICENSE = "LICENSE-onnxruntime-web.txt"
LICENSE_TEXT = f"page/ort*: onnxruntime-web {VERSION}, Copyright (c) Microsoft Corporation, under the MIT license.\n"


def load_runtime(folder: Path | None = None) -> dict[str, bytes]:
    """Return ONNX Runtime's files for browsers by name: from a folder, else from its package, which is kept.

    Raises:
        ModelError: if a file is missing, or the package cannot be had or is not the one that pronk was tested with.
    """
    if folder is None:
        return _unpack(_fetch_package())
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder} lacks {', '.join(missing)}", hint=f"name the folder dist of the package {PACKAGE}")
    return {name: (folder / name).read_bytes() for name in FILES}


def write_web(bundle: Bundle, network: bytes, runtime: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of the page, by path: with the network, an ONNX model, and what runs it."""
    files = {"model.onnx": network, LICENSE: LICENSE_TEXT.encode()}
    files |= {f"page/{name}": data for name, data in runtime.items()}
    facts = describe_bundle(bundle) | {"heatmaps": True}
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name in sorted(files):
        digest.update(files[name])
    return files | write_lone_page(facts, [*files, "model.json"], version=digest.hexdigest()[:12])


def _fetch_package() -> bytes:
    kept = CacheKind.PACKAGES.within(open_cache()) / f"onnxruntime-web-{VERSION}.tgz"
    if kept.is_file() and _is_right(data := kept.read_bytes()):
        return data
    npm = shutil.which("npm")
    if npm is None:
        raise ModelError(
            "export to web needs ONNX Runtime for browsers, and there is no npm to fetch it",
            hint=f"install npm; or name the folder dist of the package {PACKAGE} with --runtime",
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", PACKAGE, "--silent", "--pack-destination", folder]
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        found = next(Path(folder).glob("*.tgz"), None)
        if done.returncode or found is None:
            told = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise ModelError(
                f"npm cannot fetch {PACKAGE}: {told:.200}",
                hint="see whether there is a network; or name the folder dist of that package with --runtime",
            )
        data = found.read_bytes()
    if not _is_right(data):
        raise ModelError(f"{PACKAGE} is not the package that pronk was tested with", hint="see which registry npm asks")
    write_atomically(kept, data, durable=False)
    return data


def _is_right(package: bytes) -> bool:
    return base64.b64encode(hashlib.sha512(package).digest()).decode() == SHA512


def _unpack(package: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        members = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
        return {name: member.read() for name, member in members.items() if member}
