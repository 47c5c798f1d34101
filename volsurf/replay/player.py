"""One feed's stream of a capture, played fast: to any time, with one `collect` for all that came until then.

The recorded ticks of the feed's process are passed over: quotes are last values, so what a frame sees does not depend on how
often they were collected before it. What is not collected is not decoded either, and that is where the speed comes from.

A capture's time is made to run forward: where the recording machine's clock was set back, everything after that is played
later by as much, and `shift_ns` says by how much the clock of the records then lags behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.capture.format import Block, RecordKind
from volsurf.capture.records import Listing, unpack_books
from volsurf.engine.log import (
    Entry,
    FeedHealth,
    FeedStarted,
    FeedState,
    InstrumentsAdded,
    InstrumentsRetired,
    decode_entry,
)
from volsurf.engine.pacing import CLOCK_STEP_NS
from volsurf.feeds.protocol import BookEvent, Event, Health, HealthEvent, InstrumentEvent
from volsurf.quotes import QuoteBatch
from volsurf.replay._messages import FEWEST, RECEIVED, Messages, Rows, Run, Sieve
from volsurf.replay._select import select_rows
from volsurf.replay.driver import SettingsOf
from volsurf.replay.feed import RecordedFeed, snapshot_listings

_PLAYED = np.zeros(256, np.bool_)
_PLAYED[
    [
        RecordKind.CONNECTED,
        RecordKind.RECEIVED,
        RecordKind.TIMER,
        RecordKind.HTTP_ANSWER,
        RecordKind.DISCONNECTED,
        RecordKind.RESUMED,
        RecordKind.TWINNED,
        RecordKind.TAKEN_OVER,
    ]
] = True
_GATHERED = np.zeros(256, np.bool_)
_GATHERED[[RecordKind.RECEIVED, RecordKind.TIMER]] = True
_MOST_WAITING_BYTES = 128 << 20
_REPORT_NS = 2_000_000_000
"""A feed's process reports several times a second; a report older than this says nothing of now."""
_DECIDED_IN_COLLECT = (RecordKind.TWINNED, RecordKind.TAKEN_OVER)


class FeedPlayer:
    """Plays the blocks of one feed's stream up to one time after the other.

    Args:
        blocks: of the stream, from its first record or from a snapshot. settings_of: of each of its processes.
        number: the feed's, for the core. stream: its name.
        newest_only: leave out messages that a later one of the same run replaces, see `volsurf.feeds.protocol.Replaceable`.

    Attributes:
        entries: what the core is to be told, in order; `events`: what happened, under ids of the feed. Both are the reader's
            to clear.
        shift_ns: time of the records less time played. is_over: every record is played. messages: received so far.
        is_midway: it began from a snapshot in the middle of a recording.
    """

    def __init__(
        self,
        blocks: Iterable[Block],
        settings_of: SettingsOf,
        *,
        number: int,
        stream: str = "",
        newest_only: bool = True,
    ) -> None:
        self._blocks = iter(blocks)
        self._settings_of, self._number = settings_of, number
        self._newest_only = newest_only
        self.stream = stream
        self.entries: list[Entry] = []
        self.events: list[Event] = []
        self.shift_ns = 0
        self.is_over = False
        self._messages_before = self._opened_before = 0
        self.is_midway = False
        self._process = 0
        self._recorded: RecordedFeed | None = None
        self._latest = 0
        """Time played of the last record."""
        self._at = self._end = 0
        self._order: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._messages: Messages | None = None
        self._waiting: list[Run] = []
        """Messages and timers that are played together, once it is known how far."""
        self._waiting_bytes = 0
        self._sieve: Sieve | None = None
        self._shift_ahead = 0
        self._shifts: list[tuple[int, int]] = []
        """Rows of the block from which on the shift is another."""
        self._detail = ""
        self._is_heard = True
        self._told = b""
        self._healths: list[tuple[int, bytes]] = []
        """Health reports of the block: the row before which each was made."""
        self._load()

    @property
    def messages(self) -> int:
        """Received so far."""
        return self._messages_before + (0 if self._recorded is None else self._recorded.messages)

    @property
    def next_ns(self) -> int | None:
        """Time played of the next record; None where there is none."""
        return None if self.is_over else int(self._order[self._at])

    def book_snapshots(self) -> list[BookEvent]:
        """Every book as it stands, for who begins to listen now."""
        books = None if self._recorded is None else self._recorded.feed.books
        return [] if books is None else books.snapshots()

    def advance(self, until_ns: int) -> None:
        """Play every record up to a time and collect what it brought."""
        self._is_heard = not self.is_over
        while not self.is_over:
            stop = int(np.searchsorted(self._order, until_ns, "right"))
            if stop > self._at:
                self._play(self._at, stop)
                self._latest = int(self._order[stop - 1])
                self._at = stop
                while self._shifts and self._shifts[0][0] < stop:
                    self.shift_ns = self._shifts.pop(0)[1]
                while self._healths and self._healths[0][0] <= stop:
                    self._told = self._healths.pop(0)[1]
            if stop < self._end:
                break
            self._load()
        self.collect(until_ns)

    def collect(self, now: int) -> None:
        """Entries and events of what was played so far; `now` is a time played."""
        if self._recorded is None:
            return
        self._settle()
        recorded_now = now + self.shift_ns
        batch, events = self._recorded.feed.collect(recorded_now)
        universe = self._recorded.feed.universe
        retired: dict[int, None] = {}
        for event in events:
            if isinstance(event, InstrumentEvent):
                if event.added:
                    self.entries.append(
                        InstrumentsAdded(self._number, event.added, tuple(universe[i] for i in event.added))
                    )
                retired.update(dict.fromkeys(event.retired))
                for i in event.added:
                    retired.pop(i, None)
            elif isinstance(event, HealthEvent):
                if event.kind is not Health.HEARTBEAT_ANSWERED:
                    self._detail = f"{event.kind.name.lower().replace('_', ' ')}: {event.detail}".rstrip(": ")
            else:
                self.events.append(event)
        if batch is not None:
            self.entries.append(batch)
        if retired:
            self.entries.append(InstrumentsRetired(self._number, tuple(retired)))
        if self._is_heard:
            # A feed whose recording is over is heard no more, and the core says so by its own rule.
            self.entries.append(self._health(self._recorded, recorded_now))

    def _health(self, recorded: RecordedFeed, now: int) -> FeedHealth:
        """As the feed's process reported it last or, where it had nobody to report to, as far as it can be told."""
        if self._told:
            said = decode_entry(self._told)
            if isinstance(said, FeedHealth) and now - said.time_ns < _REPORT_NS:
                return msgspec.structs.replace(said, feed=self._number)
        feed = recorded.feed
        if feed.is_ready:
            state = FeedState.READY
        elif recorded.connected:
            state = FeedState.SUBSCRIBING
        else:
            state = FeedState.DISCONNECTED if recorded.opened else FeedState.CONNECTING
        counters = feed.counters
        return FeedHealth(
            feed=self._number,
            name=recorded.name,
            time_ns=now,
            state=state,
            connections=len(feed.venues),
            connected=len(recorded.connected),
            last_message_ns=recorded.last_message_ns if recorded.connected else 0,
            messages=self.messages,
            malformed=sum(count for key, count in counters.items() if key.startswith("malformed")),
            reconnects=max(0, recorded.opened - len(feed.venues)),
            detail=self._detail,
            trouble=feed.trouble[:400],
        )

    # --- blocks --------------------------------------------------------------------------------------------------------
    def _load(self) -> None:
        """The next block that holds anything to play."""
        for block in self._blocks:
            if block.process != self._process:
                if self._recorded is not None:
                    self.collect(self._latest)
                self._sieve = None
                self._begin(block)
            mask = _PLAYED[block.kind]
            rows = np.flatnonzero(mask)
            entries = np.flatnonzero(block.kind == RecordKind.ENTRY)
            told = Messages(block, entries)
            healths = [(int(at), told[n]) for n, at in enumerate(np.searchsorted(rows, entries)) if told.is_health(n)]
            if not rows.size:
                self._told = healths[-1][1] if healths else self._told
                continue
            self._healths = healths
            messages = Messages(block, rows)
            self._order = self._run_forward(messages.time_ns)
            self._messages = messages
            self._at, self._end = 0, len(rows)
            return
        self.is_over = True

    def _run_forward(self, time_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Times played of some records, rising; a clock set back is noticed, small disorder is levelled."""
        order = time_ns - self._shift_ahead
        self._shifts = []
        while True:
            level = np.maximum.accumulate(np.maximum(order, self._latest))
            back = level - order
            steps = np.flatnonzero(back >= CLOCK_STEP_NS)
            if not steps.size:
                return level
            at = int(steps[0])
            order[at:] += back[at]
            self._shift_ahead -= int(back[at])
            self._shifts.append((at, self._shift_ahead))

    def _begin(self, block: Block) -> None:
        """A process's first block that is there: its beginning, or a snapshot to begin from."""
        if self._recorded is not None:
            self._messages_before += self._recorded.messages
        self._process = block.process
        self._told = b""
        is_snapshot = block.kind[0] == RecordKind.SNAPSHOT
        self.is_midway = bool(is_snapshot and block.first > 0)
        by_connection, whole = snapshot_listings(block, 0) if is_snapshot else ({}, Listing((), ()))
        recorded = RecordedFeed(self._settings_of(block.process), self._number, by_connection)
        self._recorded = recorded
        self.entries.append(FeedStarted(self._number, recorded.name))
        if not is_snapshot:
            return
        now = int(block.time_ns[0])
        for connection, instruments in by_connection.items():
            recorded.resume(connection, instruments, now)
        universe = recorded.feed.universe
        # Learns the instruments; what their venues say of them now is what the snapshot says too.
        recorded.feed.collect(now)
        ids = tuple(np.flatnonzero(universe.active).tolist())
        self.entries.append(InstrumentsAdded(self._number, ids, tuple(universe[i] for i in ids)))
        for row in range(1, len(block)):
            if block.kind[row] == RecordKind.QUOTES:
                self.entries.append(self._quotes(block.payloads[row], whole, recorded))
            elif block.kind[row] == RecordKind.BOOKS:
                recorded.take_books(unpack_books(block.payloads[row]), whole, now)

    def _quotes(self, payload: bytes, whole: Listing, recorded: RecordedFeed) -> QuoteBatch:
        batch = QuoteBatch.from_bytes(payload)
        ours: Mapping[int, int | None] = {
            i: recorded.feed.universe.find(instrument.venue, instrument.symbol)
            for i, instrument in zip(whole.ids, whole.instruments, strict=True)
        }
        ids = [ours.get(i) for i in batch.instrument_id.tolist()]
        known = np.array([i is not None for i in ids], np.bool_)
        batch = select_rows(batch, known)
        batch.instrument_id = np.array([i for i in ids if i is not None], np.int32)
        batch.feed = self._number
        return batch

    # --- records -------------------------------------------------------------------------------------------------------
    def _play(self, start: int, stop: int) -> None:
        """Make the calls of some records of the block: messages and timers wait for more of them, everything else does not."""
        recorded, messages = self._recorded, self._messages
        assert recorded is not None
        assert messages is not None
        at = start
        for row in (start + np.flatnonzero(~_GATHERED[messages.kind[start:stop]])).tolist():
            self._wait(Run(messages, at, row))
            self._settle()
            kind, now = int(messages.kind[row]), int(messages.time_ns[row])
            if kind in _DECIDED_IN_COLLECT:
                self.collect(now - self.shift_ns)
            elif kind != RecordKind.RESUMED:  # done already, with the snapshot it belongs to
                recorded.call(kind, int(messages.connection[row]), now, messages[row])
            at = row + 1
        self._wait(Run(messages, at, stop))

    def _wait(self, run: Run) -> None:
        if run.start >= run.stop:
            return
        self._waiting.append(run)
        self._waiting_bytes += int(run.messages.length[run.start : run.stop].sum())
        if self._waiting_bytes > _MOST_WAITING_BYTES:
            self._settle()

    def _settle(self) -> None:
        """Play what waits."""
        runs, recorded = self._waiting, self._recorded
        self._waiting, self._waiting_bytes = [], 0
        if not runs or recorded is None:
            return
        rule = recorded.replaceable if self._newest_only else None
        if rule is None or sum(run.stop - run.start for run in runs) < FEWEST:
            wanted = [run.rows for run in runs]
        else:
            self._sieve = self._sieve or Sieve(rule)
            wanted = self._sieve.wanted(runs)
        for run, rows in zip(runs, wanted, strict=True):
            self._play_run(recorded, run.messages, rows)
            received = np.flatnonzero(run.messages.kind[run.start : run.stop] == RECEIVED)
            if received.size:
                recorded.messages += len(received)
                recorded.last_message_ns = int(run.messages.time_ns[run.start + received[-1]])

    @staticmethod
    def _play_run(recorded: RecordedFeed, messages: Messages, rows: Rows) -> None:
        """Receive messages, and call timers in their places."""
        connections = messages.connection[rows]
        times, owners, payloads = messages.time_ns[rows].tolist(), connections.tolist(), messages.take(rows)
        numbers = set(owners)
        receive = {number: recorded.receiver(number) for number in numbers}
        at = 0
        for timer in (*np.flatnonzero(messages.kind[rows] != RECEIVED).tolist(), len(rows)):
            if len(numbers) == 1:
                take = receive[owners[0]]
                for data, now in zip(payloads[at:timer], times[at:timer], strict=True):
                    take(data, now)
            else:
                for number, data, now in zip(owners[at:timer], payloads[at:timer], times[at:timer], strict=True):
                    receive[number](data, now)
            if timer < len(rows):
                recorded.call(int(RecordKind.TIMER), owners[timer], times[timer], b"")
            at = timer + 1
        for number in numbers:
            recorded.drain(number)
