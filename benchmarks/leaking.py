"""`pronk serve` that loses memory and open files with each request: what the soak test has to find.

python benchmarks/leaking.py MODEL --port 0
"""

import os
import sys

import pronk.server.process
from pronk.cli import main
from pronk.server.app import make_app

LEAK_BYTES = 256 * 1024  # a request
FILE_EVERY = 5  # requests


def make_leaking_app(*arguments, **options):
    app, kept = make_app(*arguments, **options), []

    async def leak(scope, receive, send):
        kept.append(os.urandom(LEAK_BYTES))
        if len(kept) % FILE_EVERY == 0:
            kept.append(os.open(os.devnull, os.O_RDONLY))
        await app(scope, receive, send)

    return leak


if __name__ == "__main__":
    pronk.server.process.make_app = make_leaking_app
    sys.argv[1:1] = ["serve"]
    main()
