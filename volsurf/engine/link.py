"""Both ends of the socket pair between a feed process and the core process.

The writer never blocks and never queues more than one message: while the core has not read the last one, the feed goes on
conflating in its board. The reader takes what has arrived and no more. So neither can slow the other down, and what is on its
way is bounded by the number of instruments.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from volsurf.engine.log import Entry, EntrySplitter, decode_entry, encode_entry, frame_entry

_BUFFER_BYTES = 1 << 20
_READ_BYTES = 1 << 18


def open_link() -> tuple[socket.socket, socket.socket]:
    """A connected pair: the feed's end and the core's."""
    feed, core = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    # A whole board of 2,000 instruments is 230 kB; with room for it the feed's write finishes in one call.
    feed.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return feed, core


class LinkWriter:
    """The feed's end. `send` is allowed when `idle`; `flush` continues a write that the socket took in part."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._rest = memoryview(b"")
        self.bytes_sent = 0

    def fileno(self) -> int:
        """Descriptor to wait on for writing while not idle."""
        return self._sock.fileno()

    @property
    def idle(self) -> bool:
        """Everything given has gone into the socket."""
        return not self._rest

    def send(self, entries: Iterable[Entry]) -> bool:
        """Start to send entries; returns whether they are gone already. `OSError` when the core is."""
        if self._rest:
            raise RuntimeError("the last message is still being written: look at idle first")
        self._rest = memoryview(b"".join(frame_entry(encode_entry(entry)) for entry in entries))
        return self.flush()

    def flush(self) -> bool:
        """Write on; returns whether all is gone. `OSError` when the core is."""
        while self._rest:
            try:
                sent = self._sock.send(self._rest)
            except (BlockingIOError, InterruptedError):
                return False
            self.bytes_sent += sent
            self._rest = self._rest[sent:]
        return True

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


class LinkReader:
    """The core's end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._splitter = EntrySplitter()
        self.closed = False
        """The feed has closed its end, or died."""

    def fileno(self) -> int:
        """Descriptor to wait on for reading."""
        return self._sock.fileno()

    def read(self) -> list[Entry]:
        """The entries that have arrived, at most a few boards' worth; `InputError` where the bytes are none."""
        entries: list[Entry] = []
        # Bounded, so that a feed that writes faster than it is read cannot keep a frame from being made.
        for _ in range(32):
            try:
                data = self._sock.recv(_READ_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            if not data:
                self.closed = True
                break
            entries += [decode_entry(piece) for piece in self._splitter.feed(data)]
        return entries

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
