"""A websocket client that hands over whole messages as bytes, as fast as they come.

websockets' asyncio connection opens (TLS, proxies, handshake), answers pings and closes; only the reading of frames is
replaced. Nearly every frame a venue sends is one unfragmented, unmasked text message, so its header is two or four bytes:
those are cut out of the buffer here. Every other frame (control, fragment, binary, masked, extension bits) goes through the
library's own parser.

Measured by `python -m tests.bench.bench_sockets` on 600-byte frames over loopback, one core of a shared AVX2 server: `recv()`
of the asyncio client 160,000 frames/s, its sans-I/O `ClientProtocol` under a protocol of our own 215,000 to 245,000, this
800,000 to 1,400,000. What limits all three is the Python run per frame, not the socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import OPEN, Event

MOST_BYTES = 16 << 20
"""A longer message is refused: the largest there is, a listing of thousands of options, has a few MB."""

_TEXT_FIN = 0x81
_MOST_HEAD = 1 << 16


class FastConnection(ClientConnection):
    """A connection whose messages go to a function, in order. They wait until `start` names it.

    Args:
        clock: ns UTC; read once for all messages that one read of the socket brought.

    Attributes:
        now: the clock's last reading. messages, bytes_received: counts.
    """

    def __init__(self, *args: Any, clock: Callable[[], int], **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.now = 0
        self.messages = 0
        self.bytes_received = 0
        self._clock = clock
        self._deliver: Callable[[bytes, int], None] | None = None
        self._after: Callable[[], None] = _nothing
        self._tail = b""
        self._fragments: list[bytes] = []
        self._in_fragments = False
        self._head_seen = False

    def start(self, deliver: Callable[[bytes, int], None], after: Callable[[], None]) -> None:
        """Give each message and its time to `deliver`, and call `after` when one read's worth is delivered."""
        self._deliver, self._after = deliver, after
        self.data_received(b"")

    def halt(self) -> None:
        """Deliver nothing any more."""
        self._deliver, self._after = _ignore, _nothing

    def post(self, messages: Iterable[bytes]) -> None:
        """Write text messages to the socket now."""
        if self.protocol.state is OPEN:
            for message in messages:
                self.protocol.send_text(message)
            self.send_data()

    def data_received(self, data: bytes) -> None:
        """Cut messages out of what the socket brought."""
        self.bytes_received += len(data)
        buffer = self._tail + data if self._tail else data
        if not self._head_seen:
            # The handshake's response ends at the first empty line; whatever else the same read brought are frames.
            end = buffer.find(b"\r\n\r\n") + 4
            if end < 4 and len(buffer) < _MOST_HEAD:
                self._tail = buffer
                return
            self._head_seen, self._tail = True, b""
            end = end if end >= 4 else len(buffer)
            super().data_received(buffer[:end])
            buffer = buffer[end:]
        if self.protocol.state is not OPEN:
            # A refused handshake's body, or what still comes after a close.
            self._tail = b""
            if buffer:
                super().data_received(buffer)
            return
        if self._deliver is None:
            self._tail = buffer
            return
        self.now = self._clock()
        self._tail = self._cut(buffer, self._deliver, self.now)
        self._after()

    def process_event(self, event: Event) -> None:
        """Put the fragments of a message together; everything but data is the library's."""
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
            return
        self._fragments.append(bytes(event.data))
        self._in_fragments = not event.fin
        if event.fin:
            message = b"".join(self._fragments)
            self._fragments.clear()
            self.messages += 1
            if self._deliver is not None:
                self._deliver(message, self.now)

    def _cut(self, buffer: bytes, deliver: Callable[[bytes, int], None], now: int) -> bytes:
        """Deliver the whole frames of a buffer and return what is left of it."""
        position, end = 0, len(buffer)
        messages = 0
        while end - position >= 2:
            size = buffer[position + 1]
            if size < 126:
                start = position + 2
            elif size == 126 and end - position >= 4:
                start = position + 4
                size = buffer[position + 2] << 8 | buffer[position + 3]
            else:
                start, size = _long_header(buffer, position)
            stop = start + size
            if stop > end and size <= MOST_BYTES:
                break
            if buffer[position] == _TEXT_FIN and buffer[position + 1] < 128 and not self._in_fragments and stop <= end:
                messages += 1
                deliver(buffer[start:stop], now)
                position = stop
                continue
            # One that is too long is refused by the library, with close code 1009, as soon as it has seen the header.
            super().data_received(buffer[position:stop])
            position = min(stop, end)
            if self.protocol.state is not OPEN:
                if position < end:
                    super().data_received(buffer[position:])
                position = end
        self.messages += messages
        return buffer[position:] if position else buffer


def _long_header(buffer: bytes, position: int) -> tuple[int, int]:
    """Where the payload of a frame starts and its size, for headers other than the usual two or four bytes."""
    masked, size = buffer[position + 1] >> 7, buffer[position + 1] & 0x7F
    start = position + 2
    if size >= 126:
        length = 2 if size == 126 else 8
        size = int.from_bytes(buffer[start : start + length])
        start += length
    return start + 4 * masked, size


def _ignore(message: bytes, now: int) -> None:
    pass


def _nothing() -> None:
    pass
