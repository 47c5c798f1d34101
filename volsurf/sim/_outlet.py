"""One client's way out of a simulated exchange: faults of the wire, framing, the venue's latency, the socket."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from random import Random

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from volsurf.sim._faults_wire import FaultyWire, Unframed
from volsurf.sim._wire import ping_frame, text_frame
from volsurf.sim.exchange import Session


class Outlet:
    """Sends one session's payloads down one connection, in order.

    Args:
        wire: what goes wrong on the way; None is nothing.
        latency: mean and deviation of the delay, seconds; (0, 0) writes at once.
        counters: where messages and bytes are counted.
        rng: of the delay.
    """

    def __init__(
        self,
        connection: ServerConnection,
        session: Session,
        wire: FaultyWire | None,
        latency: tuple[float, float],
        counters: Counter[str],
        rng: Random,
    ) -> None:
        self.connection = connection
        self.session = session
        self.wire = wire
        self.full_since: float | None = None
        self._latency, self._rng, self._counters = latency, rng, counters
        self._delayed: deque[tuple[bytes, int]] = deque()
        self._due = 0.0
        self._deaf = False

    @property
    def unread(self) -> int:
        """Bytes the client has not taken yet."""
        return self.connection.transport.get_write_buffer_size() + (self.wire.backlog if self.wire is not None else 0)

    def is_silent(self, now: int) -> bool:
        """Whether the connection is dead without being closed: nothing is written, and nothing read, pings least of all."""
        silent = self.wire is not None and self.wire.is_silent(now)
        if silent != self._deaf and not self.connection.transport.is_closing():
            self._deaf = silent
            if silent:
                self.connection.transport.pause_reading()
            else:
                self.connection.transport.resume_reading()
        return silent

    def flush(self, now: int, pings: Sequence[bytes] = ()) -> None:
        """Send what the session has queued; call it at every tick, for what a slow link held back."""
        payloads = self.session.data_to_send()
        if self.wire is not None:
            if self.is_silent(now):
                return
            payloads = self.wire.send(now, payloads)
        if not (payloads or pings) or self.connection.state is not State.OPEN:
            return
        frames = [p if isinstance(p, Unframed) else text_frame(p) for p in payloads]
        frames += map(ping_frame, pings)
        self._send(b"".join(frames), len(payloads))

    def write(self, data: bytes, messages: int) -> None:
        """Put framed bytes on the socket now."""
        if self.connection.transport.is_closing():
            # The socket broke and the library has not yet been told.
            return
        self.connection.transport.write(data)
        self._counters["messages_sent"] += messages
        self._counters["bytes_sent"] += len(data)

    def finish(self) -> None:
        """Nothing more will be queued: write what was delayed, and hear again, so that the closing handshake is heard."""
        while self._delayed:
            self._write_next()
        if self._deaf and not self.connection.transport.is_closing():
            self._deaf = False
            self.connection.transport.resume_reading()

    def _send(self, data: bytes, messages: int) -> None:
        mean, deviation = self._latency
        if not mean:
            self.write(data, messages)
            return
        loop = asyncio.get_running_loop()
        # Never earlier than what was said before: a connection keeps its order.
        self._due = max(self._due, loop.time() + max(0.0, self._rng.gauss(mean, deviation)))
        self._delayed.append((data, messages))
        loop.call_at(self._due, self._write_next)

    def _write_next(self) -> None:
        if self._delayed:
            data, messages = self._delayed.popleft()
            if self.connection.state is State.OPEN:
                self.write(data, messages)
