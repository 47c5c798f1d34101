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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volsurf.engine.control import Channel, become_child
from volsurf.engine.link import LinkWriter
from volsurf.engine.log import FeedHealth, FeedState, Liveness
from volsurf.engine.outbox import HEALTH_SECONDS, Outbox
from volsurf.errors import ConfigError
from volsurf.feeds.connection import Connection
from volsurf.feeds.liveness import LivenessMeter
from volsurf.feeds.registry import make_venues
from volsurf.feeds.venue_feed import VenueFeed, next_tick

if TYPE_CHECKING:
    from volsurf.capture.taps import FeedTap
    from volsurf.capture.writer import StreamWriter

_log = logging.getLogger("volsurf.engine.feed")

_METER_NS = int(0.9 * HEALTH_SECONDS * 1e9)


class FeedProcess:
    """The loop of a feed's process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._writer: LinkWriter | None = None
        self._stop = asyncio.Event()
        self._configured: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._outbox: Outbox | None = None
        self._feed: VenueFeed | None = None
        self._capture: StreamWriter | None = None
        self._tap: FeedTap | None = None
        self._link = 0
        self._reported = 0.0
        self._meter: LivenessMeter | None = None
        self._liveness, self._metered_ns = Liveness(), 0

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
            if self._capture is not None:
                self._capture.close()
                self._channel.send({"op": "capture", "figures": self._capture.report()})

    async def _follow(self, settings: dict[str, Any]) -> None:
        number, name = int(settings["feed"]), str(settings["venue"])
        # Without a capture nobody would look at them.
        recorded = (settings.get("capture") or {}).get("options", {})
        extras = {"trades": bool(recorded.get("trades")), "books": bool(recorded.get("books"))}
        venues = make_venues(name, settings["underlyings"], url=settings["url"], shards=settings["shards"], **extras)
        if settings.get("capture"):
            self._open_capture(settings, extras)
        feed = self._feed = VenueFeed(venues, number=number, books=extras["books"], tap=self._tap)
        self._meter = LivenessMeter(feed.board)
        self._outbox = Outbox(feed, number, name, lambda: self._health(feed, number, name), self._meter.hear)
        if self._writer is not None:
            self._begin()
        gc.collect()
        gc.freeze()
        connecting = asyncio.ensure_future(feed.connect(self._stop))
        try:
            await self._ticks(float(settings["batch_seconds"]), connecting)
        finally:
            self._stop.set()
            await connecting  # raises why the feed cannot go on

    def _open_capture(self, settings: dict[str, Any], extras: dict[str, bool]) -> None:
        from volsurf.capture.directory import make_options
        from volsurf.capture.taps import FeedTap
        from volsurf.capture.writer import StreamWriter

        capture = settings["capture"]
        named = ("venue", "feed", "underlyings", "url", "shards", "batch_seconds")
        self._capture = StreamWriter(
            Path(capture["path"]),
            f"feed-{settings['feed']}-{settings['venue']}",
            capture=capture["id"],
            options=make_options(capture["options"]),
            settings={name: settings[name] for name in named} | extras,
            snapshots=True,
        )
        self._tap = FeedTap(self._capture.recorder)

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
        now_ns = time.time_ns()
        self._outbox.gather(now_ns)
        if self._tap is not None and self._feed is not None:
            self._tap.snapshot_if_wanted(self._feed, now_ns)
        writer = self._writer
        if writer is None:
            return
        try:
            # A write that the socket took only in part goes on here, one tick later.
            if not writer.flush():
                self._outbox.late += 1
                return
            entries = self._outbox.take(now, now_ns)
            if entries:
                if self._tap is not None:
                    self._tap.handed(now_ns, entries)
                writer.send(entries)
        except OSError as error:
            # The engine knows whether that is a fault or the end.
            _log.info("the core has closed its end (%s)", error)
            writer.close()
            self._writer = None
            self._channel.send({"op": "unlinked"})
        if now - self._reported >= 1.0 and self._feed is not None:
            self._reported = now
            if self._capture is not None:
                self._channel.send({"op": "capture", "figures": self._capture.report()})
            # Only a feed that is whole has done its work: one that falls over before that is to be given up at last.
            if self._feed.is_ready:
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
        now_ns = time.time_ns()
        return FeedHealth(
            feed=number,
            name=name,
            time_ns=now_ns,
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
            trouble="; ".join(filter(None, (feed.trouble, "" if self._capture is None else self._capture.trouble)))[
                :400
            ],
            suspended="; ".join(dict.fromkeys(venue.suspended for venue in feed.venues if venue.suspended))[:400],
            liveness=self._liveness_at(now_ns, feed),
        )

    def _liveness_at(self, now_ns: int, feed: VenueFeed) -> Liveness:
        """Read as often as health is told, not at every tick that asks for it."""
        if self._meter is not None and not 0 <= now_ns - self._metered_ns < _METER_NS:
            self._metered_ns = now_ns
            self._liveness = self._meter.read(now_ns, [v.silences for v in feed.venues], takeovers=feed.takeovers)
        return self._liveness

    def _serve_control(self) -> None:
        for message in self._channel.receive():
            match message["op"]:
                case "configure":
                    if not self._configured.done():
                        self._configured.set_result(message)
                case "link":
                    self._open_link(message["fds"][0], int(message["link"]))
                case "stop":
                    self._stop.set()
        if self._channel.closed:
            # The engine is gone; nobody is left to reap or to read.
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._stop.set()

    def _open_link(self, fd: int, link: int) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._link = LinkWriter(socket.socket(fileno=fd)), link
        if self._outbox is not None:
            self._begin()

    def _begin(self) -> None:
        assert self._outbox is not None
        self._outbox.begin()
        if self._tap is not None:
            self._tap.linked(time.time_ns(), self._link)


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
