"""Keeping a Bybit connection alive: a ping every 20 s, and what its silence means (*Connect*: "How to send heartbeat")."""

from __future__ import annotations

from volsurf.feeds import _bybit_messages as wire
from volsurf.feeds._bybit_link import Link
from volsurf.feeds._watch import SECOND
from volsurf.feeds._wire import nanoseconds
from volsurf.feeds.protocol import Health

PING_EVERY = 20 * SECOND
PONG_WITHIN = 10 * SECOND


class Pings:
    """The pings of one connection; times are elapsed ns."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._number = 0
        self._ping_at = 0
        self._pong_by = 0
        self._outbox: list[bytes] = []

    def start(self) -> None:
        """A new socket."""
        self._ping_at, self._pong_by = self._link.watch.elapsed + PING_EVERY, 0
        self._outbox.clear()

    def hurry(self) -> None:
        """Ask now whether the link lives."""
        self._ping_at = min(self._ping_at, self._link.watch.elapsed)

    def advance(self) -> str:
        """Ping when it is time; why the connection must be given up, or ""."""
        watch = self._link.watch
        if self._pong_by:
            if watch.elapsed < self._pong_by:
                return ""
            self._pong_by = 0
            said = f"a ping was not answered within {PONG_WITHIN // SECOND} s"
            watch.report(Health.NO_ACK, said)
            return said
        if watch.elapsed >= self._ping_at:
            self._number += 1
            self._link.counters["pings"] += 1
            self._outbox.append(wire.encode_command(self._number, "ping"))
            self._ping_at, self._pong_by = watch.elapsed + PING_EVERY, watch.elapsed + PONG_WITHIN
        return ""

    def answered(self, message: wire.Message) -> None:
        """A pong came; lets decoding errors out."""
        self._link.counters["pongs"] += 1
        self._pong_by = 0
        if message.args:
            # The option socket's pong carries the venue's time.
            for text in wire.decode_texts(message.args)[:1]:
                if venue_ns := nanoseconds(wire.number(text)):
                    self._link.heard_time(venue_ns)

    def take_outbox(self) -> list[bytes]:
        """What goes to the socket, ahead of everything."""
        taken, self._outbox = self._outbox, []
        return taken

    @property
    def next_deadline(self) -> int:
        """When `advance` has something to do."""
        return self._pong_by or self._ping_at
