"""Trades and changes of books, from a feed's instrument ids to the core's."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from volsurf.engine.log import Entry, FeedStarted, InstrumentsAdded
from volsurf.feeds.protocol import BookEvent, Event, TradeEvent
from volsurf.instruments import Universe


class EventTranslator:
    """Knows which of the core's ids each of one feed's ids is.

    Args:
        universe: of the core that is told the feed's entries.
    """

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._ids: dict[int, int] = {}

    def learn(self, entry: Entry) -> None:
        """An entry that the core has applied."""
        if isinstance(entry, FeedStarted):
            self._ids.clear()
        elif isinstance(entry, InstrumentsAdded):
            for i, instrument in zip(entry.ids, entry.instruments, strict=True):
                found = self._universe.find(instrument.venue, instrument.symbol)
                if found is not None:
                    self._ids[i] = found

    def translate(self, events: Iterable[Event]) -> list[Event]:
        """Trades and changes of books of instruments that the core knows, in order, under its ids."""
        ids = self._ids
        return [
            msgspec.structs.replace(event, instrument_id=ids[event.instrument_id])
            for event in events
            if isinstance(event, (TradeEvent, BookEvent)) and event.instrument_id in ids
        ]
