"""The client side of the native stream: connect, mirror, ask again when a patch is missed, reconnect with back-off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from volsurf.engine.frame import Frame
from volsurf.engine.mirror import FrameMirror
from volsurf.errors import InputError, StreamError

PATH = "/v1/stream"
LEASE_SECONDS = 10.0
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 5.0
_RECEIVE_BUFFER_BYTES = 256 * 1024
_SNAPSHOT_PATIENCE = 2.0
"""Seconds to wait for a snapshot that was asked for before asking again."""

_log = logging.getLogger("volsurf.engine.client")


class _Status(msgspec.Struct):
    status: str = ""


def stream_url(url: str) -> str:
    """The address of an engine's stream from what a person types: `8765`, `host:8765`, `ws://host:8765[/v1/stream]`."""
    text = f"127.0.0.1:{url}" if url.isdigit() else url
    parts = urlsplit(text if "://" in text else f"ws://{text}")
    try:
        port = parts.port
    except ValueError as error:
        raise InputError(f"the address of an engine has a port of 1 to 65535, was {url!r}") from error
    if parts.scheme not in ("ws", "wss") or not parts.hostname or port == 0:
        raise InputError(f"the address of an engine is like ws://127.0.0.1:8765, was {url!r}")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") or PATH, "", ""))


class StreamClient:
    """Follows one engine's stream for as long as `run` runs; every public attribute may be read from any thread.

    Args:
        find: asked before each attempt where the engine is now; None for where it was.
    """

    def __init__(
        self,
        url: str,
        on_frame: Callable[[Frame], None],
        *,
        want: Sequence[str] = (),
        find: Callable[[], str | None] | None = None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.url = stream_url(url)
        self._query = f"?{urlencode({'want': ','.join(want)})}" if want else ""
        self._find = find
        self._now = asyncio.Event()
        self._on_frame = on_frame
        self._lease_seconds = lease_seconds
        self.connected = False
        self.status = f"connecting to {self.url}"
        """What is being waited for, or "" while frames come."""
        self.counters: Counter[str] = Counter()
        """connections, frames, bytes, resyncs, failures"""
        self.last_error = ""

    def try_now(self) -> None:
        """Do not wait any longer before the next attempt. To be called on the loop."""
        self._now.set()

    async def run(self) -> None:
        """Connect and follow, again and again, until cancelled."""
        backoff = _FIRST_BACKOFF
        while True:
            started = time.monotonic()
            self._now.clear()
            try:
                self.url = (self._find and self._find()) or self.url
                await self._follow()
            except (OSError, WebSocketException, TimeoutError) as error:
                self._lost(_reason(error))
            except StreamError as error:
                self.counters["failures"] += 1
                self._lost(str(error))
            except Exception as error:
                # A fault of ours must not end the view for good, nor pass unseen.
                self.counters["failures"] += 1
                _log.exception("the client of %s failed and connects again", self.url)
                self._lost(f"{type(error).__name__}: {error}")
            if time.monotonic() - started > 10.0:
                backoff = _FIRST_BACKOFF
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._now.wait(), backoff * random.uniform(0.5, 1.0))
            backoff = min(2.0 * backoff, _LONGEST_BACKOFF)

    def _lost(self, reason: str) -> None:
        self.connected = False
        self.last_error = reason
        self.status = f"no connection to the engine at {self.url} ({reason}); trying again"

    async def _follow(self) -> None:
        loopback = urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        async with connect(
            self.url + self._query,
            compression=None,
            max_size=64 * 1024 * 1024,
            max_queue=4,
            open_timeout=5,
            close_timeout=1,
            proxy=None if loopback else True,
        ) as connection:
            # A few frames' worth, so that after a stall there is no backlog of old frames to go through.
            connection.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES
            )
            self.counters["connections"] += 1
            self.connected = True
            self.status = "connected, waiting for the first frame"
            lease = asyncio.create_task(self._hold_lease(connection))
            try:
                await self._read(connection)
            finally:
                lease.cancel()
                self.connected = False

    async def _hold_lease(self, connection: ClientConnection) -> None:
        message = json.dumps({"op": "lease", "seconds": self._lease_seconds})
        try:
            while True:
                await connection.send(message)
                await asyncio.sleep(self._lease_seconds / 4)
        except ConnectionClosed:
            pass  # the reader sees it too and says so

    async def _read(self, connection: ClientConnection) -> None:
        mirror = FrameMirror()
        asked: float | None = None
        async for message in connection:
            if isinstance(message, str):
                self.status = _status(message)
                continue
            self.counters["bytes"] += len(message)
            if asked is not None and mirror.is_patch(message) and time.monotonic() - asked < _SNAPSHOT_PATIENCE:
                continue  # sent before the engine heard us
            try:
                frame = mirror.apply(message)
            except StreamError as error:
                self.counters["resyncs"] += 1
                self.last_error = str(error)
                self.status = f"asked for a snapshot: {error}"
                asked = time.monotonic()
                await connection.send('{"op": "snapshot"}')
                continue
            asked = None
            self.counters["frames"] += 1
            self.status = ""
            self._on_frame(frame)


def _status(message: str) -> str:
    try:
        return msgspec.json.decode(message, type=_Status).status[:500]
    except msgspec.DecodeError:
        return f"the engine said something this version does not know: {message[:80]}"


def _reason(error: BaseException) -> str:
    if isinstance(error, InvalidStatus):
        body = (error.response.body or b"").decode(errors="replace").strip()
        return f"HTTP {error.response.status_code} {body[:120]}".strip()
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    return str(error) or type(error).__name__
