"""`pronk serve` that says on standard error what it took from each connection, and whom it called itself."""

import sys

import pronk.server.running as running
from pronk.cli import main


def say(text):
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class CountingProtocol(running.CautiousProtocol):
    def connection_made(self, transport):
        self.taken = 0
        super().connection_made(transport)

    def data_received(self, data):
        self.taken += len(data)
        super().data_received(data)

    def connection_lost(self, error):
        say(f"took {self.taken}")
        super().connection_lost(error)


def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request", "http.client.connect"):
        say(f"called {event} {arguments[1:]}")


if __name__ == "__main__":
    running.CautiousProtocol = CountingProtocol
    sys.addaudithook(note)
    sys.argv[1:1] = ["serve"]
    main()
