"""Stores of photos for tests: one in memory whose reads can fail or wait, a web server of a folder, a server of S3."""

import contextlib
import functools
import http.server
import subprocess
import sys
import threading

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

S3_PROGRAM = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class Shaky(MemoryFileSystem):
    """A store in memory, at shaky://; `before_read` and `before_write` get each path, and may raise or wait."""

    protocol = "shaky"
    store: dict = {}  # noqa: RUF012 - one for all, as that of its parent
    pseudo_dirs = [""]  # noqa: RUF012
    before_read = before_write = staticmethod(lambda path: None)

    @classmethod
    def _strip_protocol(cls, path):
        return ("/" + str(path).removeprefix("shaky://").strip("/")).rstrip("/")

    def unstrip_protocol(self, name):
        return f"shaky:///{name.strip('/')}"

    def cat_file(self, path, start=None, end=None, **kwargs):
        Shaky.before_read(path)
        return super().cat_file(path, start, end, **kwargs)

    def put_file(self, lpath, rpath, **kwargs):
        Shaky.before_write(rpath)
        return super().put_file(lpath, rpath, **kwargs)


@contextlib.contextmanager
def open_store():
    """Give an empty store."""
    fsspec.register_implementation("shaky", Shaky, clobber=True)
    Shaky.store.clear()
    Shaky.pseudo_dirs[:] = [""]
    Shaky.before_read = Shaky.before_write = staticmethod(lambda path: None)
    yield Shaky()
    Shaky.store.clear()


def upload(store, folder, place):
    """Put the files of a folder into a store, one by one: most stores know no empty folders."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.pipe_file(f"{place}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@contextlib.contextmanager
def serve_folder(folder):
    """Serve a folder as web servers do, with a page for each folder; give its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def serve_s3(bucket):
    """Run a server of S3 in a process of its own, with an empty bucket; give a client and what leads others to it."""
    import boto3

    words = [sys.executable, "-c", S3_PROGRAM]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        port = int(process.stdout.readline())
        env = {
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
        names = {"aws_access_key_id": "somebody", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=env["AWS_ENDPOINT_URL"], **names)
        client.create_bucket(Bucket=bucket)
        yield client, env
    finally:
        process.stdin.close()
        process.wait(20)
