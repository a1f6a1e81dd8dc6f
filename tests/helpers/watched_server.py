"""`pronk serve` that says on standard error whom it called itself, and waits three seconds for headers, not ten."""

import sys

from pronk.cli import main
from pronk.server import protocol


def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request", "http.client.connect"):
        sys.stderr.write(f"called {event} {arguments[1:]}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    protocol.HEADER_SECONDS = 3.0
    sys.addaudithook(note)
    sys.argv[1:1] = ["serve"]
    main()
