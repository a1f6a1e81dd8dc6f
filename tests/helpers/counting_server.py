"""`pronk serve` that says on standard error what it took from each connection, and whom it called itself."""

import sys

from pronk.cli import main
from pronk.server import process, protocol


def say(text):
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class CountingProtocol(process.CautiousProtocol):
    """Says how many bytes it took before it answered a connection for the first time, and in all."""

    def connection_made(self, transport):
        self.taken, self.taken_before_answer = 0, None
        super().connection_made(transport)

    def on_headers_complete(self):
        super().on_headers_complete()
        write = self.cycle.transport.write

        def note_and_write(data):
            if self.taken_before_answer is None:
                self.taken_before_answer = self.taken
            write(data)

        self.cycle.transport.write = note_and_write

    def data_received(self, data):
        self.taken += len(data)
        super().data_received(data)

    def connection_lost(self, error):
        say(f"took {self.taken_before_answer} of {self.taken}")
        super().connection_lost(error)


def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request", "http.client.connect"):
        say(f"called {event} {arguments[1:]}")


if __name__ == "__main__":
    process.CautiousProtocol = CountingProtocol
    protocol.HEADER_SECONDS = 3.0  # so that nobody waits for ten
    sys.addaudithook(note)
    sys.argv[1:1] = ["serve"]
    main()
