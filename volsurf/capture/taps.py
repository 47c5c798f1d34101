"""What an engine's processes tell a capture: a feed's calls and entries, the core's runs and frames."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from volsurf.capture.format import FEED_WIDE, RecordKind
from volsurf.capture.recorder import OVERHEAD_BYTES, Recorder
from volsurf.capture.records import (
    BATCH,
    COLLECTED,
    HANDED,
    NUMBER,
    TICK,
    TOOK,
    pack_books,
    pack_http_answer,
    pack_http_request,
    pack_instruments,
)
from volsurf.engine.log import Entry, FeedStarted, encode_entry
from volsurf.feeds.protocol import HttpRequest
from volsurf.feeds.tap import Tap
from volsurf.quotes import QuoteBatch

if TYPE_CHECKING:
    from volsurf.feeds.venue_feed import VenueFeed


class FeedTap(Tap):
    """A `Tap` that leaves records, and what else a feed's process does; all in the feed's own thread."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._put = recorder.put

    # --- as `volsurf.feeds.tap.Tap` has it ---
    def opened(self, connection: int, now: int, url: str) -> None:
        self._put(now, connection, RecordKind.OPENED, url.encode())

    def connected(self, connection: int, now: int) -> None:
        self._put(now, connection, RecordKind.CONNECTED, b"")

    def received(self, connection: int, now: int, data: bytes) -> None:
        # As `Recorder.put` has it, without a call more: this is per message. 3 is RecordKind.RECEIVED.
        recorder = self._recorder
        if recorder.mark > recorder.full_at:
            recorder.put(now, connection, 3, data)
            return
        recorder.records.append((now, connection, 3, data))
        recorder.mark += len(data) + OVERHEAD_BYTES

    def timer(self, connection: int, now: int) -> None:
        self._put(now, connection, RecordKind.TIMER, b"")

    def http_answer(self, connection: int, now: int, key: str, status: int, body: bytes) -> None:
        self._put(now, connection, RecordKind.HTTP_ANSWER, pack_http_answer(key, status, body))

    def disconnected(self, connection: int, now: int, reason: str) -> None:
        self._put(now, connection, RecordKind.DISCONNECTED, reason.encode("utf-8", "replace"))

    def sent(self, connection: int, now: int, data: bytes) -> None:
        self._put(now, connection, RecordKind.SENT, data)

    def http_request(self, connection: int, now: int, request: HttpRequest) -> None:
        self._put(now, connection, RecordKind.HTTP_REQUEST, pack_http_request(request))

    def twinned(self, connection: int, now: int, twin: int) -> None:
        self._put(now, connection, RecordKind.TWINNED, NUMBER.pack(twin))

    def taken_over(self, connection: int, now: int, by: int) -> None:
        self._put(now, connection, RecordKind.TAKEN_OVER, NUMBER.pack(by))

    def collected(self, now: int, number: int, checksum: int) -> None:
        self._put(now, FEED_WIDE, RecordKind.COLLECTED, COLLECTED.pack(number, checksum))

    # --- what the feed's process tells the core's ---
    def linked(self, now: int, link: int) -> None:
        """A core that knows nothing listens on link `link`: `Outbox.begin` was called."""
        self._put(now, FEED_WIDE, RecordKind.LINKED, NUMBER.pack(link))

    def handed(self, now: int, entries: Sequence[Entry]) -> None:
        """`Outbox.take(…, now)` gave these, and they are sent."""
        whole = bool(entries) and isinstance(entries[0], FeedStarted)
        self._put(now, FEED_WIDE, RecordKind.HANDED, HANDED.pack(whole, len(entries)))
        for entry in entries:
            if isinstance(entry, QuoteBatch):
                payload = BATCH.pack(entry.number, len(entry), zlib.crc32(entry.to_bytes()))
                self._put(entry.time_ns, FEED_WIDE, RecordKind.BATCH, payload)
            else:
                self._put(now, FEED_WIDE, RecordKind.ENTRY, encode_entry(entry))

    # --- where reading may begin ---
    def snapshot_if_wanted(self, feed: VenueFeed, now: int) -> None:
        """Record the state of a feed between two calls, where the writer waits for it."""
        recorder = self._recorder
        if not recorder.wants_snapshot:
            return
        recorder.wants_snapshot = False
        venues = zip(feed.numbers, feed.venues, strict=True)
        records = [
            *((number, RecordKind.INSTRUMENTS, pack_instruments(venue.universe)) for number, venue in venues),
            (FEED_WIDE, RecordKind.INSTRUMENTS, pack_instruments(feed.universe)),
            (FEED_WIDE, RecordKind.QUOTES, feed.snapshot(now).to_bytes()),
        ]
        books = feed.books.snapshots() if feed.books is not None else []
        if books:
            records.append((FEED_WIDE, RecordKind.BOOKS, pack_books(books)))
        head = (now, FEED_WIDE, RecordKind.SNAPSHOT, NUMBER.pack(len(records)))
        recorder.put_together([head, *((now, *record) for record in records)])


class CoreTap:
    """What the core's process does, told by its thread."""

    def __init__(self, recorder: Recorder) -> None:
        self._put = recorder.put

    def took(self, now: int, feed: int, link: int, entries: int) -> None:
        """So many entries of a feed's link were applied."""
        self._put(now, feed, RecordKind.TOOK, TOOK.pack(link, entries))

    def applied(self, now: int, entry: Entry) -> None:
        """An entry of the core's own was applied."""
        self._put(now, FEED_WIDE, RecordKind.ENTRY, encode_entry(entry))

    def ticked(self, now: int, number: int, digest: bytes) -> None:
        """A frame was made for the time `now`."""
        self._put(now, FEED_WIDE, RecordKind.TICK, TICK.pack(number) + digest)
