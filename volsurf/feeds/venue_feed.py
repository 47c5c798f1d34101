"""Several connections as one feed: one universe, one board, one batch a tick."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from zlib import crc32

import numpy as np

from volsurf.errors import ConfigError
from volsurf.feeds._crew import Crew
from volsurf.feeds._members import COLUMNS, Member
from volsurf.feeds._places import Place
from volsurf.feeds.books import BookTable
from volsurf.feeds.connection import Connection, ConnectionStats
from volsurf.feeds.protocol import Event, Venue
from volsurf.feeds.tap import Tap
from volsurf.instruments import Universe
from volsurf.quotes import Field, QuoteBatch, QuoteBoard

OnTick = Callable[[QuoteBatch | None, list[Event]], None]


class VenueFeed:
    """The shards of one venue (or several venues) under one set of instrument ids.

    Where a venue asks for a takeover, its `twin` is connected beside it and stands in its place once it is ready. No quote is
    cleared meanwhile, and what the first connection said last is not overwritten by what the venue stamped earlier.

    Args:
        venues: one per connection.
        number: of the feed, stamped on its batches.
        tick: seconds between two batches.
        clock: ns UTC, shared by every connection.
        seed: of the jitter between attempts to connect.
        books: keep a `BookTable` of the venues' book events; top and depth of each book go to the board after the tickers.
        tap: told of everything that is done to the venues, for a replay.
        numbers: of the connections, one per venue; 0, 1, … where not given.
        connection: further arguments of every `Connection`.

    Attributes:
        universe: of all shards. board: last values, by its ids. batches: how many were made. books: the table, or None.
        takeovers: how often a second connection took over.
    """

    def __init__(
        self,
        venues: Sequence[Venue],
        *,
        number: int = 0,
        tick: float = 0.01,
        clock: Callable[[], int] = time.time_ns,
        seed: int | None = None,
        books: bool = False,
        tap: Tap | None = None,
        numbers: Sequence[int] | None = None,
        **connection: Any,
    ) -> None:
        if not venues:
            raise ConfigError("a feed needs at least one venue")
        numbers = range(len(venues)) if numbers is None else numbers
        if len(set(numbers)) != len(venues):
            raise ConfigError(f"{len(venues)} venues need as many different numbers, were {list(numbers)}")
        self.universe = Universe()
        self.board = QuoteBoard(self.universe)
        self.books = BookTable(self.universe) if books else None
        self.batches = 0
        self.takeovers = 0
        self._number, self._tick, self._clock, self._tap = number, tick, clock, tap
        self._options = {"clock": clock, "rng": random.Random(seed), "tap": tap, **connection}
        count = itertools.count(max(numbers) + 1)
        self._places = [
            Place(venue, at, next_number=lambda: next(count), board=self.board, books=self.books)
            for venue, at in zip(venues, numbers, strict=True)
        ]
        self._connections = {p.member.number: self._connection(p.member.venue, p.member.number) for p in self._places}
        self._past = ConnectionStats()
        self._leaving: list[Connection] = []
        self._past_counters: Counter[str] = Counter()
        self._staffed = asyncio.Event()

    def __repr__(self) -> str:
        ready = sum(venue.is_ready for venue in self.venues)
        return f"VenueFeed({len(self._places)} connections, {ready} ready, {self.universe!r})"

    @property
    def venues(self) -> list[Venue]:
        """The venue of each shard, as it stands now."""
        return [place.member.venue for place in self._places]

    @property
    def connections(self) -> list[Connection]:
        """The connection of each shard, as it stands now, with its own `stats`."""
        return [self._connections[number] for number in self.numbers]

    @property
    def numbers(self) -> list[int]:
        """Number of each shard's connection."""
        return [place.member.number for place in self._places]

    def venue(self, number: int) -> Venue | None:
        """The venue of a connection that stands in a place, is to take over or has just been replaced; None for any other."""
        for place in self._places:
            for member in (place.member, place.twin, place.former):
                if member is not None and member.number == number:
                    return member.venue
        return None

    @property
    def is_ready(self) -> bool:
        """Every connection is subscribed to everything it should be."""
        return all(venue.is_ready for venue in self.venues)

    @property
    def trouble(self) -> str:
        """What is wrong on connections that are open, in words; "" where nothing is."""
        return "; ".join(dict.fromkeys(place.trouble for place in self._places if place.trouble))

    @property
    def counters(self) -> dict[str, int]:
        """The venues' counters, those of venues that were replaced included, added up; and `takeovers`."""
        total = self._past_counters.copy()
        for venue in self.venues:
            total.update(venue.counters)
        total["takeovers"] = self.takeovers
        return dict(total)

    @property
    def stats(self) -> ConnectionStats:
        """Of all connections there ever were; messages and bytes are those of the sockets closed so far."""
        return sum((connection.stats for connection in self._all), self._past)

    @property
    def messages(self) -> int:
        """Messages received so far on all connections there ever were, those of open sockets included."""
        return self._past.messages + sum(connection.messages for connection in self._all)

    @property
    def _all(self) -> tuple[Connection, ...]:
        return (*self._connections.values(), *self._leaving)

    def collect(self, now: int | None = None) -> tuple[QuoteBatch | None, list[Event]]:
        """Everything since the last call, under this feed's ids: one row per instrument, and the events in order.

        Args:
            now: ns UTC; the clock's where not given.
        """
        now = self._clock() if now is None else now
        events: list[Event] = []
        for place in self._places:
            before = (place.member, place.twin)
            events.extend(place.collect(now))
            if (place.member, place.twin) != before:
                self._restaff(place, *before, now)
        if self.books is not None:
            self._take_tops(self.books, now)
        batch: QuoteBatch | None = None
        if self.board.touched.any():
            self.batches += 1
            batch = self.board.drain(feed=self._number, number=self.batches, time_ns=now)
        if self._tap is not None:
            number, checksum = (0, 0) if batch is None else (batch.number, crc32(batch.to_bytes()))
            self._tap.collected(now, number, checksum)
        return batch, events

    def snapshot(self, now: int | None = None) -> QuoteBatch:
        """Every last value as one batch, for a receiver that starts late. It carries the number of the batch before it.

        Args:
            now: ns UTC; the clock's where not given.
        """
        now = self._clock() if now is None else now
        ids = np.flatnonzero(self.board.receive_time_ns > 0).astype(np.int32)
        fields = np.full(len(ids), 0, np.uint16)
        for group in Field:
            fields |= np.uint16(group)
        columns = {name: getattr(self.board, name)[ids] for name in COLUMNS}
        return QuoteBatch(ids, fields, feed=self._number, number=self.batches, time_ns=now, **columns)

    async def connect(self, stop: asyncio.Event) -> None:
        """Keep every connection up until `stop` is set; what comes in waits for `collect`.

        Raises:
            ConfigError: nothing that was asked for is listed.
        """
        crew = Crew()
        try:
            while not stop.is_set():
                self._staffed.clear()
                crew.become(self._connections.values())
                await crew.wait(stop, self._staffed)
                crew.raise_errors(self.connections)
        finally:
            await crew.end()
        crew.raise_errors(self.connections)

    async def run(self, stop: asyncio.Event, on_tick: OnTick) -> None:
        """Keep every connection up and call `on_tick` once a tick in which anything came, until `stop` is set.

        The last call, after the sockets are closed, says that they are and clears what they quoted.

        Raises:
            ConfigError: nothing that was asked for is listed. Whatever `on_tick` raises.
        """
        await _together(stop, lambda ending: [self.connect(ending), self._ticks(ending, on_tick)])
        self._deliver(on_tick)

    async def _ticks(self, stop: asyncio.Event, on_tick: OnTick) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not stop.is_set():
            started = loop.time()
            self._deliver(on_tick)
            due = next_tick(due, self._tick, started, loop.time())
            await asyncio.sleep(due - loop.time())

    def _deliver(self, on_tick: OnTick) -> None:
        batch, events = self.collect()
        if batch is not None or events:
            on_tick(batch, events)

    def _take_tops(self, books: BookTable, now: int) -> None:
        tops = books.take_quotes(now)
        if tops is not None:
            ids = tops.instrument_id
            # A ticker of the same instrument may be newer: its times stay, so that they do not depend on how often this runs.
            tops.venue_time_ns = np.maximum(tops.venue_time_ns, self.board.venue_time_ns[ids])
            tops.receive_time_ns = np.maximum(tops.receive_time_ns, self.board.receive_time_ns[ids])
            self.board.apply(tops)
            for place in self._places:
                place.note(tops)
        for row in books.doubtful(now):
            for place in self._places:
                if place.member.restart_book(row, now):
                    self._connections[place.member.number].flush()

    def _restaff(self, place: Place, member: Member, twin: Member | None, now: int) -> None:
        """Connections for those who came, none for those who went."""
        if place.member is not member:
            self.takeovers += 1
            if self._tap is not None:
                self._tap.taken_over(member.number, now, place.member.number)
            self._past_counters.update(member.venue.counters)
        if twin is not None and twin is not place.twin and twin is not place.member:
            self._past_counters.update(twin.venue.counters)
        if place.twin is not None and place.twin is not twin:
            self._connections[place.twin.number] = self._connection(place.twin.venue, place.twin.number)
            if self._tap is not None:
                self._tap.twinned(place.member.number, now, place.twin.number)
        wanted = {member.number for p in self._places for member in (p.member, p.twin) if member is not None}
        # Those that left at an earlier takeover have long closed their sockets: their figures are the last.
        for connection in self._leaving:
            self._past += connection.stats
        self._leaving = [self._connections.pop(number) for number in self._connections.keys() - wanted]
        self._staffed.set()

    def _connection(self, venue: Venue, number: int) -> Connection:
        return Connection(venue, number=number, **self._options)


def next_tick(due: float, period: float, started: float, ended: float) -> float:
    """When to tick again, after a tick that was due at `due` and ran from `started` to `ended`; loop times in seconds.

    The grid stays where it is and missed ticks are not made up for. At least as long as it ticked the loop then reads its
    sockets: ticking at every turn, it would read a quarter of a megabyte a tick and heartbeats would wait in the sockets.
    """
    return max(due + period, ended + (ended - started))


async def _together(stop: asyncio.Event, work: Callable[[asyncio.Event], list[Coroutine[Any, Any, None]]]) -> None:
    """Run coroutines until an event is set or one of them ends; then all are told to end, and the first error is raised."""
    ending = asyncio.Event()
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work(ending)]
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((*tasks, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Sockets are closed by their own tasks, whether this one was told to stop, was cancelled or saw another fail.
        ending.set()
        stopped.cancel()
        await asyncio.gather(*tasks, stopped, return_exceptions=True)
    for task in tasks:
        task.result()
