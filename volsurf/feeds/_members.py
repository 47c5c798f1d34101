"""One venue object of a feed, and what it says under the feed's own instrument ids."""

from __future__ import annotations

import msgspec
import numpy as np

from volsurf.feeds.protocol import BookEvent, Event, InstrumentEvent, TradeEvent, Venue
from volsurf.instruments import IdArray, Universe
from volsurf.quotes import VALUES, QuoteBatch

COLUMNS = (*VALUES, "venue_time_ns", "receive_time_ns", "sequence")
"""Names of the columns of a batch and of a board, ids and fields apart."""


class Member:
    """One `Venue` of a feed.

    Args:
        number: of its connection within the feed. universe: the feed's.
    """

    def __init__(self, venue: Venue, number: int, universe: Universe) -> None:
        self.venue, self.number = venue, number
        self._universe = universe
        self._ids: IdArray = np.zeros(0, np.int32)

    def collect(self, now: int) -> tuple[QuoteBatch | None, list[Event]]:
        """Everything since the last call, under the feed's ids; listings are still under the venue's, see `listed`."""
        batch = self.venue.take_quotes(now)
        events = self.venue.events()
        self._learn()
        if batch is not None:
            batch.instrument_id = self._ids[batch.instrument_id]
        return batch, [self._translate(event) for event in events]

    def listed(self, event: InstrumentEvent) -> InstrumentEvent:
        """Make the feed's universe what a listing says, and say it under the feed's ids."""
        rows = self.venue.universe
        # Listed again, or with a new tick: same id, new terms.
        added = self._universe.add(rows[row] for row in event.added) if event.added else self._ids[:0]
        retired = self._ids[list(event.retired)]
        self._universe.retire(retired)
        return InstrumentEvent(tuple(added.tolist()), tuple(retired.tolist()))

    def restart_book(self, instrument_id: int, now: int) -> bool:
        """Ask for a new snapshot of a book, if it is of an instrument of this venue; whether it is."""
        (rows,) = np.nonzero(self._ids == instrument_id)
        for row in rows[-1:].tolist():
            self.venue.restart_book(row, now)
        return bool(len(rows))

    @property
    def ids(self) -> set[int]:
        """Ids in the feed of everything it ever listed."""
        return set(self._ids.tolist())

    @property
    def active(self) -> set[int]:
        """Ids in the feed of what it lists now."""
        return set(self._ids[self.venue.universe.active[: len(self._ids)]].tolist())

    def _learn(self) -> None:
        """Ids of instruments the venue has appended."""
        rows, known = self.venue.universe, self._ids
        if len(rows) > len(known):
            fresh = self._universe.add(rows[row] for row in range(len(known), len(rows)))
            self._ids = np.concatenate((known, fresh))

    def _translate(self, event: Event) -> Event:
        if isinstance(event, (TradeEvent, BookEvent)):
            return msgspec.structs.replace(event, instrument_id=int(self._ids[event.instrument_id]))
        return event
