"""One place of a feed: the venue that stands there, and at times a second one that is to take over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from volsurf.feeds._members import Member
from volsurf.feeds._takeover import SECOND, Overlap, Settling, quoted_by
from volsurf.feeds.books import BookTable
from volsurf.feeds.protocol import BookEvent, Event, Health, HealthEvent, InstrumentEvent, Venue
from volsurf.instruments import BoolArray
from volsurf.quotes import Field, QuoteBatch, QuoteBoard

_AGAIN = 60 * SECOND
"""After a twin that connecting again could not help."""
_NEVER = 1 << 62


class Place:
    """The venue of one shard, whichever socket it is on. It writes to the feed's board and books.

    Args:
        number: of the venue's connection. next_number: gives the number of a twin's.
    """

    def __init__(
        self,
        venue: Venue,
        number: int,
        *,
        next_number: Callable[[], int],
        board: QuoteBoard,
        books: BookTable | None,
    ) -> None:
        self._universe = board.universe
        self.member = Member(venue, number, board.universe)
        self.former: Member | None = None
        """Who stood here before."""
        self._next_number, self._board, self._books = next_number, board, books
        self._overlap: Overlap | None = None
        self._settling: Settling | None = None
        self._inherited: Member | None = None
        self._booked: set[int] = set()
        """Whose books come from here: another connection of the venue may list the same instruments."""
        self._is_cut = False
        self._not_before = 0

    @property
    def twin(self) -> Member | None:
        """Who is to take over, where somebody is."""
        return None if self._overlap is None else self._overlap.twin

    @property
    def trouble(self) -> str:
        """What is wrong here now, in words; "" where nothing is."""
        said = [self.member.venue.trouble]
        if self._overlap is not None and self._overlap.failures:
            said.append(f"{self.member.venue.takeover}, and a second connection fails: {self._overlap.failure}")
        return "; ".join(filter(None, said))

    def collect(self, now: int) -> list[Event]:
        """Write what came since the last call to the board and the books; returns the events, under the feed's ids."""
        batch, events = self.member.collect(now)
        if self._overlap is not None:
            return self._overlapping(self._overlap, batch, events, now)
        told = self._tell(batch, events, now)
        told += self._bury(now)
        if self._settling is not None:
            self._settle(self._settling, now)
        reason = self.member.venue.takeover
        if reason and now >= self._not_before and not self._is_cut:
            told.append(self._begin(reason, now))
        return told

    def note(self, batch: QuoteBatch) -> None:
        """These instruments are quoted by their books."""
        if self._settling is not None:
            self._settling.note(batch)

    def _tell(self, batch: QuoteBatch | None, events: Sequence[Event], now: int) -> list[Event]:
        """Take the word of the venue that stands here."""
        settling = self._settling
        if settling is not None:
            events = settling.news(list(events))
            batch = None if batch is None else settling.admit(batch)
        if batch is not None:
            self._board.apply(batch)
        return [self._apply(event, now) for event in events]

    def _apply(self, event: Event, now: int) -> Event:
        books = self._books
        if isinstance(event, BookEvent):
            self._booked.add(event.instrument_id)
            if books is not None:
                books.apply(event, now)
        elif isinstance(event, InstrumentEvent):
            event = self.member.listed(event)
            if books is not None:
                books.clear(event.retired)
        elif isinstance(event, HealthEvent):
            if event.kind is Health.DISCONNECTED:
                self._is_cut = True
                if books is not None:
                    books.clear(self._booked)
            elif event.kind is Health.CONNECTED:
                self._is_cut = False
        return event

    def _begin(self, reason: str, now: int) -> HealthEvent:
        try:
            twin = self.member.venue.twin()
        except NotImplementedError as error:
            self._not_before = _NEVER
            return HealthEvent(Health.TAKEOVER, now, f"{reason}, and nothing can take over: {error}")
        self._overlap = Overlap(Member(twin, self._next_number(), self._universe), self._universe)
        return HealthEvent(Health.TAKEOVER, now, f"opening a second connection: {reason}")

    def _overlapping(
        self, overlap: Overlap, batch: QuoteBatch | None, events: Sequence[Event], now: int
    ) -> list[Event]:
        worth = overlap.listen(events, now)
        cut = next((e.detail for e in events if isinstance(e, HealthEvent) and _says_cut(e)), None)
        twin = overlap.twin.venue
        if twin.is_ready:
            # Quotes of a connection that was cut meanwhile are cleared in its last batch; the twin's stand for them.
            told = self._tell(None if cut is not None else batch, [e for e in events if not _says_cut(e)], now)
            return told + worth + self._switch(overlap, now)
        told = self._tell(batch, events, now) + worth
        if cut is not None and overlap.is_connected:
            return told + self._switch(overlap, now)
        if cut is not None or twin.fatal is not None:
            self._overlap = None
            told += self._retire(overlap.twin.ids - self.member.active, now)
            self._not_before = now if cut is not None else now + _AGAIN
            told.append(HealthEvent(Health.TAKEOVER, now, f"the second connection is given up: {cut or twin.fatal}"))
        return told

    def _switch(self, overlap: Overlap, now: int) -> list[Event]:
        """From here on the twin stands in this place."""
        gave, takes = self.member, overlap.twin
        reason = gave.venue.takeover
        snapshots = overlap.books.snapshots()
        settling = Settling(
            overlap,
            self._board,
            quoted=quoted_by(self._board, gave.ids),
            bookless=self._booked - {event.instrument_id for event in snapshots},
            now=now,
        )
        self.member, self.former, self._inherited = takes, gave, gave
        self._overlap, self._settling, self._is_cut = None, settling, False
        self._board.apply(settling.begin())
        events: list[Event] = [HealthEvent(Health.TAKEOVER, now, f"a second connection took over: {reason}")]
        if added := sorted(takes.active - gave.active):
            events.append(InstrumentEvent(added=tuple(added)))
        events += overlap.trades()
        events += [self._apply(event, now) for event in snapshots]
        return events + self._bury(now)

    def _bury(self, now: int) -> list[Event]:
        """Retire what only the former venue listed, once the one that took over has seen all there is."""
        if self._inherited is None or not self.member.venue.is_ready:
            return []
        gave, self._inherited = self._inherited, None
        return self._retire((gave.ids | self.member.ids) - self.member.active, now)

    def _retire(self, ids: set[int], now: int) -> list[Event]:
        gone = sorted(row for row in ids if self._universe.active[row])
        if not gone:
            return []
        self._universe.retire(gone)
        self._clear(quoted_by(self._board, set(gone)), set(gone), now)
        return [InstrumentEvent(retired=tuple(gone))]

    def _settle(self, settling: Settling, now: int) -> None:
        held = settling.held_back(now)
        if held is not None:
            self._board.apply(held)
        if now >= settling.over_at:
            self._settling = None
            self._clear(settling.missing(self._board), settling.bookless, now)

    def _clear(self, quoted: BoolArray, books: set[int], now: int) -> None:
        self._board.apply(QuoteBatch(np.flatnonzero(quoted), Field.QUOTE, receive_time_ns=now))
        if self._books is not None:
            self._books.clear(books)


def _says_cut(event: Event) -> bool:
    return isinstance(event, HealthEvent) and event.kind is Health.DISCONNECTED
