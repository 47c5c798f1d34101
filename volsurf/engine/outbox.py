"""What a feed has to tell the core, conflated until there is somebody to tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from volsurf.engine.log import Entry, FeedHealth, FeedStarted, FeedState, InstrumentsAdded, InstrumentsRetired
from volsurf.feeds.protocol import Event, Health, HealthEvent, InstrumentEvent
from volsurf.instruments import Universe
from volsurf.quotes import QuoteBatch, QuoteBoard

HEALTH_SECONDS = 0.25
"""Period of the feed's report; a change of state is reported at once."""
_QUIET = (Health.HEARTBEAT_ANSWERED,)
_MISSED = ("heartbeat", "test_request", "ping")
"""What venues say when they close a connection that did not answer in time."""


Hear = Callable[[int, QuoteBatch | None, list[Event]], None]


class Source(Protocol):
    """What the outbox needs of a `VenueFeed`."""

    universe: Universe

    def collect(self, now: int) -> tuple[QuoteBatch | None, list[Event]]:
        """What happened since the last call; ns UTC."""

    def snapshot(self, now: int) -> QuoteBatch:
        """Every last value."""


class Outbox:
    """What a feed has to tell the core, conflated until there is somebody to tell.

    It reads no clock: the same source, given the same calls of `begin`, `gather` and `take` at the same `now_ns`, gives the same
    batches. A replay makes them again that way; `now` decides only when health, which a capture keeps verbatim, is told.

    Args:
        health: returns the feed's state now; asked once a message.
        hear: told what each `gather` took, with its time.
    """

    def __init__(
        self, source: Source, feed: int, name: str, health: Callable[[], FeedHealth], hear: Hear | None = None
    ) -> None:
        self._source, self._feed, self._name, self._health, self._hear = source, feed, name, health, hear
        self._pending = QuoteBoard(source.universe)
        self._batch: QuoteBatch | None = None
        self._number = 0
        self._added: dict[int, None] = {}
        self._retired: dict[int, None] = {}
        self._told = 0.0
        self._told_state: FeedState | None = None
        self._whole = False
        """The link begins: everything is to be sent, whatever was sent before."""
        self.late = 0
        """Ticks on which the last message was still unread."""
        self.events: dict[Health, int] = dict.fromkeys(Health, 0)
        self.heartbeats_missed = 0
        self.detail = ""
        """The newest event in words."""
        self.refused = ""
        """What the venue would not give on this connection, in words."""

    def begin(self) -> None:
        """There is a new reader who knows nothing."""
        self._whole = True

    def gather(self, now_ns: int) -> None:
        """Take what the connections brought since the last call; ns UTC."""
        batch, events = self._source.collect(now_ns)
        if self._hear is not None:
            self._hear(now_ns, batch, events)
        for event in events:
            if isinstance(event, InstrumentEvent):
                self._listings(event)
            elif isinstance(event, HealthEvent):
                self._note(event)
            # Trades and books are for the capture; they never drive a frame.
        if batch is None:
            return
        self._number = batch.number
        if self._batch is None and not self._pending.touched.any():
            # The usual case: the core keeps up and the batch passes through as it is.
            self._batch = batch
            return
        if self._batch is not None:
            self._pending.apply(self._batch)
            self._batch = None
        self._pending.apply(batch)

    def take(self, now: float, now_ns: int) -> list[Entry]:
        """The entries to send now; what they carry is no longer pending.

        Args:
            now: seconds of a steady clock. now_ns: ns UTC.
        """
        if self._whole:
            return self._everything(now, now_ns)
        entries: list[Entry] = []
        universe = self._source.universe
        if self._added:
            ids = tuple(self._added)
            entries.append(InstrumentsAdded(self._feed, ids, tuple(universe[i] for i in ids)))
        if self._batch is not None:
            entries.append(self._batch)
            self._batch = None
        elif self._pending.touched.any():
            entries.append(self._pending.drain(feed=self._feed, number=self._number, time_ns=now_ns))
        if self._retired:
            entries.append(InstrumentsRetired(self._feed, tuple(self._retired)))
        self._added, self._retired = {}, {}
        health = self._health()
        if now - self._told >= HEALTH_SECONDS or health.state is not self._told_state:
            entries.append(health)
            self._told, self._told_state = now, health.state
        return entries

    def _everything(self, now: float, now_ns: int) -> list[Entry]:
        universe = self._source.universe
        ids = tuple(np.flatnonzero(universe.active).tolist())
        health = self._health()
        self._whole = False
        self._added, self._retired = {}, {}
        self._pending.drain()
        self._batch = None
        self._told, self._told_state = now, health.state
        listed = InstrumentsAdded(self._feed, ids, tuple(universe[i] for i in ids))
        return [FeedStarted(self._feed, self._name), listed, self._source.snapshot(now_ns), health]

    def _listings(self, event: InstrumentEvent) -> None:
        for i in event.added:
            self._retired.pop(i, None)
            self._added[i] = None
        for i in event.retired:
            self._added.pop(i, None)
            self._retired[i] = None

    def _note(self, event: HealthEvent) -> None:
        self.events[event.kind] += 1
        if event.kind is Health.DISCONNECTED and any(word in event.detail.lower() for word in _MISSED):
            self.heartbeats_missed += 1
        if event.kind is Health.REFUSED:
            self.refused = event.detail
        elif event.kind is Health.CONNECTED:
            self.refused = ""
        if event.kind not in _QUIET:
            words = event.kind.name.lower().replace("_", " ")
            self.detail = f"{words}: {event.detail}" if event.detail else words
