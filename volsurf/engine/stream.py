"""The engine's native stream, version 1: frames to any number of clients, none of which can delay another or the engine.

    ws://127.0.0.1:PORT/v1/stream[?want=BTC,ETH]

    server → client   binary   a frame: a snapshot first, then patches (`volsurf.engine.codec`)
                      text     {"status": "…"}: what the engine is doing while there is no frame yet
    client → server   text     {"op": "hello", "want": ["BTC"]}    from now on only these underlyings (none: all)
                               {"op": "snapshot"}                  send a snapshot next: a patch was missed or did not hash
                               {"op": "lease", "seconds": 10}      go on sending for so long; nothing without

Each client has one task that sends it the newest frame as a patch against what *it* got last. While a send is unfinished the
frames in between are skipped, so what waits for a slow client is bounded by one frame. A client that says anything else is told
why and closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import math
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from volsurf.engine.frame import Frame

PATH = "/v1/stream"
FIRST_LEASE = 10.0
"""Seconds a client is served before it has said anything."""
LONGEST_LEASE = 60.0
MAXIMUM_CLIENTS = 256
MAXIMUM_MESSAGE_BYTES = 4096
MAXIMUM_WANTED = 64
MESSAGES_PER_SECOND = 20
"""What a client may say, on average over its last two seconds; one that says more is closed."""

_log = logging.getLogger("volsurf.engine.stream")


class Hello(msgspec.Struct, frozen=True, tag_field="op", tag="hello"):
    """First words of a client, or a change of mind."""

    want: tuple[str, ...] = ()


class SnapshotWanted(msgspec.Struct, frozen=True, tag_field="op", tag="snapshot"):
    """The client lost the thread."""


class Lease(msgspec.Struct, frozen=True, tag_field="op", tag="lease"):
    """The client is alive and somebody is looking."""

    seconds: float


_decoder = msgspec.json.Decoder(Hello | SnapshotWanted | Lease)


class _Refused(Exception):
    """A client's message that cannot be accepted; the text is the reason it is closed with."""


def _names_in(path: str) -> list[str]:
    return [name for value in parse_qs(urlsplit(path).query).get("want", []) for name in value.split(",")]


def _wanted(names: Sequence[str]) -> tuple[str, ...]:
    if len(names) > MAXIMUM_WANTED or any(len(name) > 32 for name in names):
        raise _Refused(f"at most {MAXIMUM_WANTED} underlyings of 32 letters")
    return tuple(sorted(set(names) - {""}))


class _Client:
    """What the server knows of one connection."""

    def __init__(self, connection: ServerConnection, now: float) -> None:
        self.connection = connection
        self.want: tuple[str, ...] = ()
        self.lease_until = now + FIRST_LEASE
        self.sent: Frame | None = None
        """The frame this client has; None makes the next one a snapshot."""
        self.newest_offered = 0
        self.wake = asyncio.Event()
        self._allowance = 2.0 * MESSAGES_PER_SECOND
        self._heard_at = now

    def hear(self, message: str | bytes, now: float) -> str:
        """Take a message and return its kind; `_Refused` with a reason where it is none of the protocol's."""
        self._allowance = min(2.0 * MESSAGES_PER_SECOND, self._allowance + (now - self._heard_at) * MESSAGES_PER_SECOND)
        self._heard_at = now
        self._allowance -= 1.0
        if self._allowance < 0.0:
            raise _Refused(f"more than {MESSAGES_PER_SECOND} messages a second")
        if isinstance(message, bytes):
            raise _Refused("clients speak JSON text, not binary")
        try:
            said = _decoder.decode(message)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise _Refused(f"not a message of this protocol: {error}") from error
        if isinstance(said, Hello):
            self.want = _wanted(said.want)
            self.sent = None
            kind = "hello"
        elif isinstance(said, SnapshotWanted):
            self.sent = None
            kind = "snapshot"
        else:
            if not (math.isfinite(said.seconds) and 0.0 < said.seconds <= LONGEST_LEASE):
                raise _Refused(f"a lease is more than 0 and at most {LONGEST_LEASE:.0f} seconds")
            self.lease_until = now + said.seconds
            kind = "lease"
        self.wake.set()
        return kind


class StreamServer:
    """Serves frames on a listening socket. All methods but `publish` and `say` belong to the event loop's thread."""

    def __init__(self, listener: socket.socket, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._listener = listener
        self._clock = clock
        self._clients: set[_Client] = set()
        self._newest: Frame | None = None
        self._status = "starting"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._announced = False
        self._server: Server | None = None
        self.counters: Counter[str] = Counter()
        """connections, frames_sent, bytes_sent, snapshots_sent, frames_skipped, messages_refused, leases_lapsed, …"""
        self.last_client_at = clock()
        """When the last client left, or the server started; meaningful while there are no clients."""

    @property
    def clients(self) -> int:
        """Connections open now."""
        return len(self._clients)

    async def start(self) -> None:
        """Begin to accept connections."""
        self._loop = asyncio.get_running_loop()
        self._server = await serve(
            self._handle,
            sock=self._listener,
            process_request=self._admit,
            compression=None,  # the blocks are doubles that deflate poorly, and loopback is not narrow
            max_size=MAXIMUM_MESSAGE_BYTES,
            max_queue=4,
            write_limit=65_536,  # beyond this a send waits for the client, which is what makes frames skip
            ping_interval=20,
            ping_timeout=20,
            close_timeout=1,
            server_header=None,
        )

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        if self._server is not None:
            self._server.close(close_connections=True, code=1001, reason="the engine stops")
            await self._server.wait_closed()

    def publish(self, frame: Frame) -> None:
        """Make a frame the newest. Any thread; returns at once and never queues more than this one."""
        self._newest = frame
        self._announce()

    def say(self, status: str) -> None:
        """What to tell clients while there is no frame. Any thread."""
        self._status = status
        self._announce()

    def _announce(self) -> None:
        if self._loop is None or self._announced:
            return
        self._announced = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: the engine is stopping
            self._loop.call_soon_threadsafe(self._wake_all)

    def _wake_all(self) -> None:
        # Cleared first: a frame that arrives while we look schedules another look, so none is forgotten.
        self._announced = False
        for client in self._clients:
            client.wake.set()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if urlsplit(request.path).path != PATH:
            self.counters["requests_refused"] += 1
            return connection.respond(http.HTTPStatus.NOT_FOUND, f"volsurf's stream is at {PATH}\n")
        # A web page of another origin could otherwise read the stream of whoever visits it.
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).hostname not in ("localhost", "127.0.0.1", "::1"):
            self.counters["requests_refused"] += 1
            return connection.respond(http.HTTPStatus.FORBIDDEN, "pages of other hosts may not read this stream\n")
        try:
            _wanted(_names_in(request.path))
        except _Refused as refusal:
            self.counters["requests_refused"] += 1
            return connection.respond(http.HTTPStatus.BAD_REQUEST, f"{refusal}\n")
        if len(self._clients) >= MAXIMUM_CLIENTS:
            self.counters["requests_refused"] += 1
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{MAXIMUM_CLIENTS} clients already\n")
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        client = _Client(connection, self._clock())
        assert connection.request is not None
        client.want = _wanted(_names_in(connection.request.path))
        self._clients.add(client)
        self.counters["connections"] += 1
        client.wake.set()
        sender = asyncio.create_task(self._send_frames(client))
        try:
            async for message in connection:
                try:
                    self.counters["heard_" + client.hear(message, self._clock())] += 1
                except _Refused as refusal:
                    self.counters["messages_refused"] += 1
                    # A close reason is at most 123 bytes of UTF-8.
                    reason = str(refusal).encode()[:120].decode(errors="ignore")
                    await connection.close(1003 if isinstance(message, bytes) else 1008, reason)
                    break
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)
            self.last_client_at = self._clock()
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await sender

    async def _send_frames(self, client: _Client) -> None:
        """The one task that writes to a client."""
        told = ""
        lapsed = False
        try:
            while True:
                await client.wake.wait()
                client.wake.clear()
                frame = self._newest
                if frame is None:
                    if told != self._status:
                        told = self._status
                        await client.connection.send(msgspec.json.encode({"status": told}).decode())
                    continue
                if self._clock() > client.lease_until:
                    self.counters["leases_lapsed"] += not lapsed
                    lapsed = True
                    continue
                lapsed = False
                if client.sent is not None and client.sent.number == frame.number:
                    continue
                await self._send(client, frame)
        except ConnectionClosed:
            pass
        except Exception:
            # Nothing else waits for this task: without this a fault would leave a client connected and silent for ever.
            _log.exception("a client's frames could not be sent")
            self.counters["send_failures"] += 1
            await client.connection.close(1011, "the engine could not encode a frame")

    async def _send(self, client: _Client, frame: Frame) -> None:
        view = frame.select(client.want) if client.want else frame
        base = client.sent
        data = view.to_bytes() if base is None else view.patch(base)
        if base is not None:
            self.counters["frames_skipped"] += frame.number - base.number - 1
        # Before the send: a "snapshot" that arrives while it waits must not be overwritten by it.
        client.sent = view
        await client.connection.send(data)
        self.counters["frames_sent"] += 1
        self.counters["snapshots_sent"] += base is None
        self.counters["bytes_sent"] += len(data)
