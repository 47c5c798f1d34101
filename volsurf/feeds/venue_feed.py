"""Several connections as one feed: one universe, one board, one batch a tick."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import numpy as np

from volsurf.errors import ConfigError
from volsurf.feeds.connection import Connection
from volsurf.feeds.protocol import BookEvent, Event, InstrumentEvent, TradeEvent, Venue
from volsurf.instruments import IdArray, Universe
from volsurf.quotes import Field, QuoteBatch, QuoteBoard

OnTick = Callable[[QuoteBatch | None, list[Event]], None]


class VenueFeed:
    """The shards of one venue (or several venues) under one set of instrument ids.

    Args:
        venues: one per connection.
        number: of the feed, stamped on its batches.
        tick: seconds between two batches.
        clock: ns UTC, shared by every connection.
        seed: of the jitter between attempts to connect.
        connection: further arguments of every `Connection`.

    Attributes:
        universe: of all shards. board: last values, by its ids. batches: how many were made.
        connections: one per venue, with their `stats`.
    """

    def __init__(
        self,
        venues: Sequence[Venue],
        *,
        number: int = 0,
        tick: float = 0.01,
        clock: Callable[[], int] = time.time_ns,
        seed: int | None = None,
        **connection: Any,
    ) -> None:
        if not venues:
            raise ConfigError("a feed needs at least one venue")
        rng = random.Random(seed)
        self.venues = list(venues)
        self.connections = [Connection(venue, clock=clock, rng=rng, **connection) for venue in venues]
        self.universe = Universe()
        self.board = QuoteBoard(self.universe)
        self.batches = 0
        self._number, self._tick, self._clock = number, tick, clock
        self._ids: list[IdArray] = [np.zeros(0, np.int32) for _ in venues]

    def __repr__(self) -> str:
        ready = sum(venue.is_ready for venue in self.venues)
        return f"VenueFeed({len(self.venues)} connections, {ready} ready, {self.universe!r})"

    @property
    def is_ready(self) -> bool:
        """Every connection is subscribed to everything it should be."""
        return all(venue.is_ready for venue in self.venues)

    @property
    def trouble(self) -> str:
        """What is wrong on connections that are open, in words; "" where nothing is."""
        return "; ".join(dict.fromkeys(venue.trouble for venue in self.venues if venue.trouble))

    @property
    def counters(self) -> dict[str, int]:
        """The venues' counters, added up."""
        total: dict[str, int] = {}
        for venue in self.venues:
            for name, count in venue.counters.items():
                total[name] = total.get(name, 0) + count
        return total

    def collect(self) -> tuple[QuoteBatch | None, list[Event]]:
        """Everything since the last call, under this feed's ids: one row per instrument, and the events in order."""
        now = self._clock()
        events: list[Event] = []
        for shard, venue in enumerate(self.venues):
            happened = venue.events()
            self._learn(shard)
            events.extend(self._translate(shard, event) for event in happened)
            batch = venue.take_quotes(now)
            if batch is not None:
                batch.instrument_id = self._ids[shard][batch.instrument_id]
                self.board.apply(batch)
        if not self.board.touched.any():
            return None, events
        self.batches += 1
        return self.board.drain(feed=self._number, number=self.batches, time_ns=now), events

    def snapshot(self) -> QuoteBatch:
        """Every last value as one batch, for a receiver that starts late. It carries the number of the batch before it."""
        ids = np.flatnonzero(self.board.receive_time_ns > 0).astype(np.int32)
        fields = np.full(len(ids), 0, np.uint16)
        for group in Field:
            fields |= np.uint16(group)
        columns = {name: getattr(self.board, name)[ids] for name in _COLUMNS}
        return QuoteBatch(ids, fields, feed=self._number, number=self.batches, time_ns=self._clock(), **columns)

    async def connect(self, stop: asyncio.Event) -> None:
        """Keep every connection up until `stop` is set; what comes in waits for `collect`.

        Raises:
            ConfigError: nothing that was asked for is listed.
        """
        await _together(stop, lambda ending: [connection.run(ending) for connection in self.connections])

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

    def _learn(self, shard: int) -> None:
        """Ids of instruments the venue has appended."""
        rows, known = self.venues[shard].universe, self._ids[shard]
        if len(rows) > len(known):
            fresh = self.universe.add(rows[row] for row in range(len(known), len(rows)))
            self._ids[shard] = np.concatenate((known, fresh))

    def _translate(self, shard: int, event: Event) -> Event:
        ids = self._ids[shard]
        if isinstance(event, (TradeEvent, BookEvent)):
            return msgspec.structs.replace(event, instrument_id=int(ids[event.instrument_id]))
        if isinstance(event, InstrumentEvent):
            universe = self.venues[shard].universe
            # Listed again, or with a new tick: same id, new terms.
            added = self.universe.add(universe[row] for row in event.added) if event.added else ids[:0]
            retired = ids[list(event.retired)]
            self.universe.retire(retired)
            return InstrumentEvent(tuple(added.tolist()), tuple(retired.tolist()))
        return event


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


_COLUMNS = tuple(n for n in QuoteBatch.__slots__ if n not in ("feed", "number", "time_ns", "instrument_id", "fields"))
