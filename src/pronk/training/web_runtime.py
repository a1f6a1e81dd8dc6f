"""An export to web -> what it says: asked photo by photo in a browser without a window, or in Node where there is none.

In a browser it is the page's own code that answers, from the decoder on. Neither reaches any address but the folder.
"""

import contextlib
import functools
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pronk.errors import ModelError
from pronk.model.bundle import Bundle
from pronk.model.formats.runtimes import Outputs
from pronk.photos.decoding import read_bytes

BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)  # fmt: skip
QUIET = (
    "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
SECONDS = 120.0  # for an answer; the first one waits for the browser to start
POLL_SECONDS = 0.5
NEXT, ANSWER, PROVER = "/prove/next", "/prove/answer", "/prove/prove.html"
SQUARE = "application/octet-stream"  # pixels as the network takes them; anything else is the file of a photo
# Both ask for photos until there are none: they get the same, and answer with probabilities and features.
IN_BROWSER = f"""<!DOCTYPE html><title>pronk</title><script type="module">
import {{ ask }} from "/page/api.js";
for (;;) {{
    const asked = await fetch("{NEXT}"), photo = await asked.blob();
    if (asked.status !== 200) break;
    const given = photo.type === "{SQUARE}" ? {{ square: new Uint8Array(await photo.arrayBuffer()) }} : photo;
    const told = await ask(given, {{ raw: true }}).catch(({{ message }}) => ({{ error: message }}));
    await fetch("{ANSWER}", {{ method: "POST", body: JSON.stringify(told) }});
}}
</script>"""
IN_NODE = """
const [folder, address] = process.argv.slice(1);
const { pathToFileURL } = await import("node:url"), { readFile } = await import("node:fs/promises");
const ort = await import(pathToFileURL(`${folder}/page/ort.wasm.min.mjs`));
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmBinary = await readFile(`${folder}/page/ort-wasm-simd-threaded.wasm`);
const session = await ort.InferenceSession.create(await readFile(`${folder}/model.onnx`));
const { size } = JSON.parse(await readFile(`${folder}/model.json`)).image, names = ["probabilities", "features"];
for (;;) {
    const asked = await fetch(`${address}/prove/next`);
    if (asked.status !== 200) break;
    const square = new Uint8Array(await asked.arrayBuffer());
    const told = await session.run({ image: new ort.Tensor("uint8", square, [1, size, size, 3]) }, names);
    const answer = { probabilities: [...told.probabilities.data], features: [...told.features.data] };
    await fetch(`${address}/prove/answer`, { method: "POST", body: JSON.stringify(answer) });
}
"""


class Question(NamedTuple):
    """What is asked: the bytes, their media type, and where the answer goes."""

    data: bytes
    kind: str
    answer: "Future[Outputs]"


class _RefusedError(ModelError):
    """The page has no answer about a photo."""


def find_browser() -> str | None:
    """Return the program of a browser that can prove the page."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class WebRuntime:
    """An export to web, opened; photos are asked one after the other. Close it, or its browser goes on.

    Attributes:
        place: what it runs in, such as "Chromium 140.0.1 (headless)".
        decodes: whether files of photos can be asked about, not only pixels.
        not_decoded: number of files that the browser could not read.
    """

    shapes: Mapping[str, list[Any]] = {}  # nobody asks a runtime that is only there to be compared

    def __init__(self, bundle: Bundle) -> None:
        browser = find_browser()
        self.decodes = browser is not None
        self.not_decoded = 0
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._at_end = contextlib.ExitStack()
        server = _Server(("127.0.0.1", 0), functools.partial(_Handler, directory=str(bundle.folder)))
        server.questions = self._questions
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._at_end.callback(server.server_close)
        self._at_end.callback(server.shutdown)
        self._at_end.callback(self._questions.put, None)
        address = f"http://127.0.0.1:{server.server_port}"
        if browser:
            self.place = f"{_ask_version(browser)} (headless)"
            profile = self._at_end.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            # Root, as in a container, is refused a sandbox. The page is our own.
            root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
            command = [browser, *QUIET, *root, f"--user-data-dir={profile}", f"{address}{PROVER}"]
        else:
            node = find_node()
            self.place = f"Node {_ask_version(node)}"
            command = [node, "--input-type=module", "--eval", IN_NODE, "--", str(bundle.folder.absolute()), address]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)  # fmt: skip
        self._at_end.callback(self._end)

    def run(self, pixels: np.ndarray, *, heat: bool = False) -> Outputs:
        """Run uint8 pixels [1, size, size, 3]; heat is left to the page."""
        return self._ask(np.ascontiguousarray(pixels).tobytes(), SQUARE)

    def run_files(self, files: Sequence[Path], squares: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Ask about files, decoded by the browser: probabilities [n, C] and features [n, d], float32.

        About one that browsers do not read, such as a TIFF, its pixels are asked, uint8 [size, size, 3].
        """
        outputs = []
        for file, square in zip(files, squares, strict=True):
            try:
                outputs.append(self._ask(read_bytes(file), "image/*"))
            except _RefusedError:
                self.not_decoded += 1
                outputs.append(self.run(square[None]))
        return np.concatenate([one.probabilities for one in outputs]), np.concatenate([one.features for one in outputs])

    def close(self) -> None:
        """End the browser and its server."""
        self._at_end.close()

    def _ask(self, data: bytes, kind: str) -> Outputs:
        question = Question(data, kind, Future())
        self._questions.put(question)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(TimeoutError):
                return question.answer.result(POLL_SECONDS)
        raise ModelError(
            f"the page gives no answer in {self.place}", hint="open the folder through a web server, and see"
        )

    def _end(self) -> None:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    questions: "queue.SimpleQueue[Question | None]"
    asked: Question | None = None  # the page has one question at a time

    def handle_error(self, *_: object) -> None:
        """Pass over a browser that left in the middle."""


class _Handler(SimpleHTTPRequestHandler):
    """Serve a folder, the page that asks, and the questions."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}
    server: "_Server"

    def do_GET(self) -> None:
        if self.path == PROVER:
            self._send(200, IN_BROWSER.encode(), "text/html; charset=utf-8")
        elif self.path == NEXT:
            question = self.server.asked = self.server.questions.get()
            self._send(200 if question else 204, question.data if question else b"", question.kind if question else "")
        else:
            super().do_GET()

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = self.server.asked
        if question and "error" in told:
            question.answer.set_exception(_RefusedError(f"the page does not answer: {told['error']}"))
        elif question:
            rows = (np.array(told[name], np.float32)[None] for name in ("probabilities", "features"))
            question.answer.set_result(Outputs(*rows))
        self._send(204)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _send(self, status: int, body: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def find_node() -> str:
    """Return the program of Node.

    Raises:
        ModelError: if there is none.
    """
    found = shutil.which("node")
    if found is None:
        raise ModelError(
            "the page cannot be proven: there is neither a browser nor Node here",
            hint="install chromium, Google Chrome or Node, then type the same command again",
        )
    return found


def _ask_version(program: str) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return told.split(" built ")[0] or Path(program).name
