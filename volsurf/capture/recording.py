"""`vs.capture`: raw feeds into a capture, without an engine."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volsurf.capture.directory import CaptureOptions, claim, make_options
from volsurf.capture.reader import Capture, open_capture
from volsurf.capture.taps import FeedTap
from volsurf.capture.writer import StreamWriter
from volsurf.engine.wanted import check_urls, check_wanted
from volsurf.errors import ConfigError, FeedError
from volsurf.feeds.protocol import BookEvent, Event, TradeEvent
from volsurf.feeds.registry import make_venues
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.quotes import QuoteBatch

_log = logging.getLogger("volsurf.capture")

TICK_SECONDS = 0.1
"""Between two calls of `collect`: nobody waits for the quotes, they only must not pile up."""


class _Followed:
    """One venue that is recorded."""

    def __init__(self, feed: VenueFeed, writer: StreamWriter, tap: FeedTap) -> None:
        self.feed, self.writer, self.tap = feed, writer, tap
        self.events: Counter[str] = Counter()
        self.failure = ""

    @property
    def messages(self) -> int:
        """Received so far, those still on their way to the disk included."""
        return sum(connection.messages for connection in self.feed.connections)

    def figures(self) -> dict[str, Any]:
        """Counts so far."""
        counts = self.writer.figures | {"messages": self.messages}
        stored, raw = counts["stored_bytes"], counts["raw_bytes"]
        return {
            **counts,
            "ratio": raw / stored if stored else 0.0,
            "trades": self.events["trade"],
            "book_events": self.events["book"],
            "connected": sum(connection.is_open for connection in self.feed.connections),
            "connections": len(self.feed.connections),
            "trouble": "; ".join(filter(None, (self.failure, self.feed.trouble, self.writer.trouble))),
        }


class Recording:
    """Records what venues say, in a thread of this process, from when it is made until `stop()` or the end of a `with` block.

        with vs.capture(["deribit", "okx"], ["BTC"], "captures/today", max_gb=20) as recording:
            recording.wait(3600)
            recording.figures["messages_per_second"]

    The venue's own discovery, subscriptions and heartbeats run as in an engine; nothing is fitted.

    Args:
        venues: one name or several. underlyings: as the venues read them.
        path: directory to record in; where it holds an earlier capture the new one is made beside it, see `path`.
        url: address instead of the public one; `{venue: address}` for several venues. shards: connections each.
        options: of `CaptureOptions`: `books`, `trades`, `max_gb`, `keep_days`, …

    Attributes:
        path: where it is recorded.

    Raises:
        InputError: an unknown venue, no underlying.
        ConfigError: an option that cannot be, or another process is recording in the directory.
    """

    def __init__(
        self,
        venues: str | Sequence[str],
        underlyings: str | Sequence[str],
        path: str | os.PathLike[str],
        *,
        url: str | Mapping[str, str] | None = None,
        shards: int = 1,
        **options: Any,
    ) -> None:
        names = (venues,) if isinstance(venues, str) else tuple(venues)
        wanted = (underlyings,) if isinstance(underlyings, str) else tuple(underlyings)
        check_wanted(names, wanted)
        urls = check_urls(names, url)
        chosen = make_options(options)
        made = [
            make_venues(name, wanted, url=urls.get(name), shards=shards, trades=chosen.trades, books=chosen.books)
            for name in names
        ]
        self._claim = claim(path, {"venues": names, "underlyings": wanted})
        self.path: Path = self._claim.path
        self._started = time.monotonic()
        self._ended: float | None = None
        self._followed: dict[str, _Followed] = {}
        for number, (name, feed_venues) in enumerate(zip(names, made, strict=True)):
            settings = {
                "venue": name,
                "feed": number,
                "underlyings": wanted,
                "url": urls.get(name),
                "shards": shards,
                "batch_seconds": TICK_SECONDS,
                "trades": chosen.trades,
                "books": chosen.books,
            }
            self._follow(number, name, feed_venues, settings, chosen)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="volsurf-capture", daemon=True)
        self._thread.start()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        figures = self.figures
        state = "recording" if self.is_running else "ended"
        return (
            f"Recording({str(self.path)!r}, {state}, {figures['messages']:,} messages in {figures['seconds']:,.1f} s)"
        )

    @property
    def is_running(self) -> bool:
        """It has not ended."""
        return not self._over.is_set()

    @property
    def is_ready(self) -> bool:
        """Every venue that goes on is subscribed to everything it should be, and one does."""
        going_on = [followed for followed in self._followed.values() if not followed.failure]
        return bool(going_on) and all(followed.feed.is_ready for followed in going_on)

    @property
    def trouble(self) -> str:
        """What is wrong now, by venue, in words; "" where nothing is."""
        troubles = {name: followed.figures()["trouble"] for name, followed in self._followed.items()}
        return "; ".join(f"{name}: {trouble}" for name, trouble in troubles.items() if trouble)

    @property
    def figures(self) -> dict[str, Any]:
        """Counts so far, of all venues together; each venue's own under `venues`."""
        venues = {name: followed.figures() for name, followed in self._followed.items()}
        seconds = (time.monotonic() if self._ended is None else self._ended) - self._started
        summed = (
            "messages",
            "records",
            "raw_bytes",
            "stored_bytes",
            "lost_records",
            "lost_bytes",
            "trades",
            "book_events",
        )
        total = {name: sum(counts[name] for counts in venues.values()) for name in summed}
        return {
            "seconds": round(seconds, 3),
            **total,
            "messages_per_second": total["messages"] / seconds if seconds else 0.0,
            "ratio": total["raw_bytes"] / total["stored_bytes"] if total["stored_bytes"] else 0.0,
            "writer_seconds": sum(counts["writer_seconds"] for counts in venues.values()),
            "venues": venues,
        }

    def wait(self, seconds: float | None = None) -> bool:
        """Until it ends or so many seconds have passed; returns whether it ended."""
        return self._over.wait(seconds)

    def stop(self, timeout: float = 15.0) -> None:
        """Disconnect, write what there is, close the files; safe to call twice.

        Raises:
            FeedError: no venue could be followed at all; the message says why, for each.
        """
        if not self._over.is_set():
            self._loop.call_soon_threadsafe(self._stop.set)
            if not self._over.wait(timeout):
                _log.error("the recording in %s did not end within %g s", self.path, timeout)
        failures = [followed.failure for followed in self._followed.values() if followed.failure]
        if failures and len(failures) == len(self._followed):
            raise FeedError("; ".join(failures))

    def open(self) -> Capture:
        """What was recorded so far, to be read."""
        return open_capture(self.path)

    def _follow(
        self, number: int, name: str, venues: list[Any], settings: dict[str, Any], options: CaptureOptions
    ) -> None:
        writer = StreamWriter(
            self.path,
            f"feed-{number}-{name}",
            capture=self._claim.id,
            options=options,
            settings=settings,
            snapshots=True,
        )
        tap = FeedTap(writer.recorder)
        feed = VenueFeed(venues, number=number, tick=TICK_SECONDS, tap=tap, books=options.books)
        self._followed[name] = _Followed(feed, writer, tap)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._connect())
        except Exception:
            _log.exception("the recording in %s failed", self.path)
        finally:
            for followed in self._followed.values():
                followed.writer.close()
            self._claim.release()
            self._loop.close()
            self._ended = time.monotonic()
            self._over.set()

    async def _connect(self) -> None:
        await asyncio.gather(*(self._connect_one(name, followed) for name, followed in self._followed.items()))

    async def _connect_one(self, name: str, followed: _Followed) -> None:
        try:
            await followed.feed.run(self._stop, partial(_tick, followed))
        except ConfigError as error:
            # The others go on: a venue that lists nothing of what was asked takes none of them with it.
            followed.failure = f"{name}: {error}"
            _log.warning("%s", followed.failure)


def _tick(followed: _Followed, batch: QuoteBatch | None, events: list[Event]) -> None:
    del batch
    for event in events:
        if isinstance(event, TradeEvent):
            followed.events["trade"] += 1
        elif isinstance(event, BookEvent):
            followed.events["book"] += 1
    followed.tap.snapshot_if_wanted(followed.feed, time.time_ns())


# The package itself, which can be called: `volsurf.capture` is both.
if TYPE_CHECKING:
    capture = Recording
else:
    capture = sys.modules["volsurf.capture"]
