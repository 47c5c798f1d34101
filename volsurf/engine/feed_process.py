"""A feed's process: holds the exchange connections and hands their conflated quotes to the core.

    python -m volsurf.engine.feed_process CONTROL_FD PARENT_PID      (started by `volsurf.engine.live`)

It never waits for the core. While the core has not read the last message, quotes go on overwriting each other in a board here,
so what is held back is bounded by the number of instruments; listings are held back as two sets of ids, health as its newest.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from volsurf.engine.control import Channel, become_child
from volsurf.engine.link import LinkWriter
from volsurf.engine.log import FeedHealth, FeedState
from volsurf.engine.outbox import Outbox
from volsurf.errors import ConfigError
from volsurf.feeds.connection import Connection
from volsurf.feeds.feed import make_venues
from volsurf.feeds.venue_feed import VenueFeed, next_tick

_log = logging.getLogger("volsurf.engine.feed")


class FeedProcess:
    """The loop of a feed's process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._writer: LinkWriter | None = None
        self._stop = asyncio.Event()
        self._configured: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._outbox: Outbox | None = None
        self._feed: VenueFeed | None = None
        self._reported = 0.0

    async def run(self) -> None:
        """Until told to stop, the engine is gone, or the feed cannot go on."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._serve_control)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        self._serve_control()
        waiting = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((waiting, self._configured), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not self._configured.done():
            return
        settings = self._configured.result()
        try:
            await self._follow(settings)
        except ConfigError as error:
            self._channel.send({"op": "failed", "text": str(error)})
        finally:
            if self._writer is not None:
                self._writer.close()

    async def _follow(self, settings: dict[str, Any]) -> None:
        number, name = int(settings["feed"]), str(settings["venue"])
        # Trades would only be dropped here; the capture subscribes to them.
        venues = make_venues(
            name, settings["underlyings"], url=settings["url"], shards=settings["shards"], trades=False
        )
        feed = self._feed = VenueFeed(venues, number=number)
        self._outbox = Outbox(feed, number, name, lambda: self._health(feed, number, name))
        if self._writer is not None:
            self._outbox.begin()
        gc.collect()
        gc.freeze()
        connecting = asyncio.ensure_future(feed.connect(self._stop))
        try:
            await self._ticks(float(settings["batch_seconds"]), connecting)
        finally:
            self._stop.set()
            await connecting  # raises why the feed cannot go on

    async def _ticks(self, period: float, connecting: asyncio.Future[None]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._stop.is_set() and not connecting.done():
            started = loop.time()
            self._tick(started)
            due = next_tick(due, period, started, loop.time())
            await asyncio.sleep(due - loop.time())

    def _tick(self, now: float) -> None:
        assert self._outbox is not None
        self._outbox.gather()
        writer = self._writer
        if writer is None:
            return
        try:
            # A write that the socket took only in part goes on here, one tick later.
            if not writer.flush():
                self._outbox.late += 1
                return
            entries = self._outbox.take(now, time.time_ns())
            if entries:
                writer.send(entries)
        except OSError as error:
            # The engine knows whether that is a fault or the end.
            _log.info("the core has closed its end (%s)", error)
            writer.close()
            self._writer = None
            self._channel.send({"op": "unlinked"})
        # Only a feed that is whole has done its work: one that falls over before that is to be given up at last.
        if now - self._reported >= 1.0 and self._feed is not None and self._feed.is_ready:
            self._reported = now
            self._channel.send({"op": "alive"})

    def _health(self, feed: VenueFeed, number: int, name: str) -> FeedHealth:
        outbox = self._outbox
        assert outbox is not None
        open_now = [connection._socket for connection in feed.connections if connection._socket is not None]
        opened = sum(connection.stats.opened for connection in feed.connections)
        counters = feed.counters
        if feed.is_ready:
            state = FeedState.READY
        elif open_now:
            state = FeedState.SUBSCRIBING
        else:
            state = FeedState.DISCONNECTED if opened else FeedState.CONNECTING
        return FeedHealth(
            feed=number,
            name=name,
            time_ns=time.time_ns(),
            state=state,
            connections=len(feed.connections),
            connected=len(open_now),
            last_message_ns=max((sock.now for sock in open_now), default=0),
            messages=sum(_messages(connection) for connection in feed.connections),
            malformed=sum(count for key, count in counters.items() if key.startswith("malformed")),
            reconnects=max(0, opened - len(feed.connections)),
            heartbeats_missed=outbox.heartbeats_missed,
            late_batches=outbox.late,
            detail=outbox.refused if state is FeedState.READY else outbox.detail,
            trouble=feed.trouble[:400],
        )

    def _serve_control(self) -> None:
        for message in self._channel.receive():
            match message["op"]:
                case "configure":
                    if not self._configured.done():
                        self._configured.set_result(message)
                case "link":
                    self._open_link(message["fds"][0])
                case "stop":
                    self._stop.set()
        if self._channel.closed:
            # The engine is gone; nobody is left to reap or to read.
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._stop.set()

    def _open_link(self, fd: int) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = LinkWriter(socket.socket(fileno=fd))
        if self._outbox is not None:
            self._outbox.begin()


def _messages(connection: Connection) -> int:
    current = connection._socket
    return connection.stats.messages + (0 if current is None else current.messages)


async def _run(arguments: Sequence[str]) -> None:
    await FeedProcess(become_child(int(arguments[0]), int(arguments[1]))).run()


def main() -> None:
    """Entry point of the process."""
    logging.basicConfig(level=logging.WARNING, format="volsurf feed: %(message)s", stream=sys.stderr)
    asyncio.run(_run(sys.argv[1:]))


if __name__ == "__main__":
    main()
