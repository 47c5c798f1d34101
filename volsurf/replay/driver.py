"""One feed's stream of a capture, played exactly: the recorded calls at the recorded times, and the entries the core was sent.

Everything a feed's process told its core is made again from what its sockets brought, and each batch is compared with the crc32
that was recorded when it was made and when it was sent. What lies in a capture verbatim (health, listings) is handed on verbatim.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from volsurf.capture.format import Block, RecordKind
from volsurf.capture.records import BATCH, COLLECTED, NUMBER
from volsurf.engine.log import Entry, FeedHealth, FeedState, decode_entry
from volsurf.engine.outbox import Outbox
from volsurf.errors import ReplayError
from volsurf.feeds.protocol import BookEvent, Event, TradeEvent
from volsurf.instruments import Universe
from volsurf.quotes import QuoteBatch
from volsurf.replay._times import time_text
from volsurf.replay.feed import RecordedFeed, snapshot_listings

SettingsOf = Callable[[int], Mapping[str, Any]]
"""Process number → settings of the feed as that process had them."""


class FeedDriver:
    """Plays the blocks of one feed's stream.

    Args:
        blocks: of the stream, from its first record. settings_of: of each of its processes.
        number: of the feed. stream: its name, for messages.
        strict: raise where a batch is not the recorded one; else count it in `differing` and go on.

    Attributes:
        differing: batches that were not the recorded ones. batches: compared so far. messages: received so far.
        events: trades and changes of order books since somebody last cleared the list, ids of `universe`.
    """

    def __init__(
        self, blocks: Iterable[Block], settings_of: SettingsOf, *, number: int, stream: str = "", strict: bool = True
    ) -> None:
        self._records = self._play(blocks)
        self._settings_of, self._number, self._strict = settings_of, number, strict
        self.stream = stream
        self.differing = 0
        self.batches = 0
        self.events: list[Event] = []
        self.time_ns = 0
        self._link = 0
        self._handed: dict[int, deque[Entry]] = {}
        self._messages_before = 0
        self._recorded: RecordedFeed | None = None
        self._source: _Source | None = None

    @property
    def messages(self) -> int:
        """Messages received so far, by all its processes."""
        return self._messages_before + (0 if self._recorded is None else self._recorded.messages)

    @property
    def universe(self) -> Universe:
        """Instruments under the feed's ids, of the process that is played."""
        return Universe() if self._recorded is None else self._recorded.feed.universe

    def take(self, link: int, count: int) -> list[Entry] | None:
        """The next entries sent on a link; None where the recording ends before them."""
        for old in [number for number in self._handed if number < link]:
            # A link that was replaced: what was still on its way on it never arrived.
            del self._handed[old]
        while len(self._handed.get(link, ())) < count:
            if next(self._records, None) is None:
                return None
        waiting = self._handed[link]
        return [waiting.popleft() for _ in range(count)]

    def entries(self) -> Iterator[Entry]:
        """Everything sent, in order, whatever link it went down."""
        while next(self._records, None) is not None:
            for waiting in self._handed.values():
                while waiting:
                    yield waiting.popleft()

    def _play(self, blocks: Iterable[Block]) -> Iterator[RecordKind]:
        """Play record by record; yields at every entry that was handed over."""
        process = due = 0
        for block in blocks:
            if block.process != process:
                process = block.process
                self._begin(process, block)
            elif block.first != due:
                self._missing(f"{block.first - due:,} records")
            due = block.first + len(block)
            rows = zip(
                block.kind.tolist(), block.connection.tolist(), block.time_ns.tolist(), block.payloads, strict=True
            )
            for kind, connection, now, payload in rows:
                if kind <= RecordKind.RESUMED:
                    self.time_ns = now
                    self._call(kind, connection, now, payload)
                elif kind == RecordKind.COLLECTED:
                    self.time_ns = now
                    self._collect(now, payload)
                elif kind == RecordKind.HANDED:
                    self._hand(now, payload)
                elif kind == RecordKind.LINKED:
                    self._link = NUMBER.unpack(payload)[0]
                    self._outbox.begin()
                elif kind == RecordKind.ENTRY:
                    self._give(decode_entry(payload))
                    yield RecordKind.ENTRY
                elif kind == RecordKind.BATCH:
                    self._give(self._batch(payload))
                    yield RecordKind.BATCH
                elif kind == RecordKind.LOST:
                    self._missing("records")

    def _begin(self, process: int, block: Block) -> None:
        if self._recorded is not None:
            self._messages_before += self._recorded.messages
        if block.first != 0:
            self._missing(f"the first {block.first:,} records of its process {process}")
        self._listings = snapshot_listings(block, 0)[0] if block.kind[0] == RecordKind.SNAPSHOT else {}
        recorded = self._recorded = RecordedFeed(self._settings_of(process), self._number, self._listings)
        self._source = _Source(recorded, self.events)
        silent = FeedHealth(feed=self._number, name=recorded.name, time_ns=0, state=FeedState.CONNECTING)
        # Its health reports lie in the capture verbatim, so what is asked here is never sent.
        self._outbox = Outbox(self._source, self._number, recorded.name, lambda: silent)
        self._sent: deque[QuoteBatch] = deque()

    def _call(self, kind: int, connection: int, now: int, payload: bytes) -> None:
        assert self._recorded is not None
        if kind == RecordKind.RESUMED:
            self._recorded.resume(connection, self._listings.get(connection, ()), now)
        else:
            self._recorded.call(kind, connection, now, payload)

    def _collect(self, now: int, payload: bytes) -> None:
        assert self._source is not None
        self._outbox.gather(now)
        number, checksum = COLLECTED.unpack(payload)
        made = self._source.last
        if made is None:
            self._compare(number == 0, now, f"batch {number} was made then, none is now")
        else:
            self.batches += 1
            # A tick's batch passes through as it is or is conflated with the next, so it is compared here, before either.
            same = made.number == number and zlib.crc32(made.to_bytes()) == checksum
            self._compare(same, now, f"batch {number} is not what it was")

    def _hand(self, now: int, payload: bytes) -> None:
        del payload
        entries = self._outbox.take(0.0, now)
        self._sent = deque(entry for entry in entries if isinstance(entry, QuoteBatch))

    def _batch(self, payload: bytes) -> QuoteBatch:
        number, rows, checksum = BATCH.unpack(payload)
        if not self._sent:
            raise ReplayError(
                f"{self.stream}: batch {number} of {rows} rows was sent then, and there is nothing to send now"
            )
        batch = self._sent.popleft()
        same = (batch.number, len(batch)) == (number, rows) and zlib.crc32(batch.to_bytes()) == checksum
        self._compare(same, batch.time_ns, f"batch {number} of {rows} rows was sent then, {batch!r} is now")
        return batch

    def _give(self, entry: Entry) -> None:
        self._handed.setdefault(self._link, deque()).append(entry)

    def _missing(self, what: str) -> NoReturn:
        after = f" after {time_text(self.time_ns)}" if self.time_ns else ""
        raise ReplayError(
            f"{self.stream}: {what}{after} are missing, so that frames cannot be made exactly as they were from there on; "
            "give every=… for frames of what is there"
        )

    def _compare(self, same: bool, now: int, what: str) -> None:
        if same:
            return
        self.differing += 1
        if self._strict:
            raise ReplayError(
                f"{self.stream}: at {time_text(now)} {what}: the capture was made by another version, or a venue's protocol "
                "is not deterministic"
            )


class _Source:
    """What an outbox collects from: the feed, with its trades and books kept aside."""

    def __init__(self, recorded: RecordedFeed, events: list[Event]) -> None:
        self._feed = recorded.feed
        self.universe = self._feed.universe
        self.last: QuoteBatch | None = None
        self._events = events

    def collect(self, now: int) -> tuple[QuoteBatch | None, list[Event]]:
        """What happened since the last call."""
        self.last, events = self._feed.collect(now)
        self._events += [event for event in events if isinstance(event, (TradeEvent, BookEvent))]
        return self.last, events

    def snapshot(self, now: int) -> QuoteBatch:
        """Every last value."""
        return self._feed.snapshot(now)
