"""Two venue objects in one place of a feed: the second before it takes over, and the time after in which it must show itself.

Nothing here reads a clock or touches a socket: what happens depends only on what the venues said and on the times at which they
were asked, so a replay takes over where the live feed did.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from volsurf.feeds._members import COLUMNS, Member
from volsurf.feeds.books import BookTable
from volsurf.feeds.protocol import BookEvent, Event, Health, HealthEvent, TradeEvent
from volsurf.instruments import BoolArray, IntArray, Universe
from volsurf.quotes import Field, QuoteBatch, QuoteBoard

SECOND = 1_000_000_000
CATCH_UP_NS = 2 * SECOND
"""For so long after a takeover what the old connection said last holds against what the venue stamped earlier. The new one has
caught up by then, whatever lay between two sockets of one machine."""
SHOW_NS = 15 * SECOND
"""A venue sends the state of a channel when it is subscribed to, and every venue here sends a ticker at least every few seconds:
what was not quoted for so long after a takeover is not quoted."""
_MOST_TRADES = 100_000


class Overlap:
    """The second connection until it takes over: what it says is kept, and not yet believed.

    Attributes:
        twin: its venue. is_connected: its socket is open. failures: how often that ended.
    """

    def __init__(self, twin: Member, universe: Universe) -> None:
        self.twin = twin
        self.is_connected = False
        self.failures = 0
        self.failure = ""
        self._universe = universe
        self.board = QuoteBoard(universe)
        self.books = BookTable(universe)
        self._trades: dict[TradeEvent, None] = {}
        self._seen: dict[TradeEvent, None] = {}

    def listen(self, told: Iterable[Event], now: int) -> list[Event]:
        """Take what the twin brought since the last call; returns what of it is worth telling now.

        Args:
            told: what the first connection said in the same time.
        """
        for event in told:
            if isinstance(event, TradeEvent):
                _remember(self._seen, event)
        batch, events = self.twin.collect(now)
        if batch is not None:
            self.board.apply(batch)
        worth: list[Event] = []
        for event in events:
            if isinstance(event, TradeEvent):
                _remember(self._trades, event)
            elif isinstance(event, BookEvent):
                self.books.apply(event, now)
            elif isinstance(event, HealthEvent):
                worth.extend(self._health(event))
        return worth

    def trades(self) -> list[TradeEvent]:
        """Trades that only the twin has told of."""
        return [trade for trade in self._trades if trade not in self._seen]

    @property
    def trades_seen(self) -> frozenset[TradeEvent]:
        """Trades that either has told of."""
        return frozenset(self._seen) | frozenset(self._trades)

    def _health(self, event: HealthEvent) -> list[Event]:
        if event.kind is Health.CONNECTED:
            self.is_connected = True
        elif event.kind is Health.DISCONNECTED:
            self.is_connected = False
            self.failures += 1
            self.failure = event.detail
            # Its books start again from snapshots.
            self.books = BookTable(self._universe)
            return [HealthEvent(Health.TAKEOVER, event.time_ns, f"the second connection failed: {event.detail}")]
        elif event.kind is not Health.READY:
            return [event]
        return []


class Settling:
    """The time after a takeover.

    Args:
        board: the feed's, before anything of the new connection is on it.
        quoted: which ids the old connection quotes there, shape (n,).
        bookless: ids of whose books the new one has sent nothing; it shrinks.

    Attributes:
        over_at: when what is still missing is not quoted, ns UTC.
    """

    def __init__(
        self,
        overlap: Overlap,
        board: QuoteBoard,
        *,
        quoted: BoolArray,
        bookless: set[int],
        now: int,
    ) -> None:
        self._said: IntArray = np.where(quoted, board.venue_time_ns, 0)
        self._missing = quoted.copy()
        self.bookless = bookless
        self._own = overlap.board
        self._held: dict[int, int] = {}
        self._seen = overlap.trades_seen
        self._caught_up_at, self.over_at = now + CATCH_UP_NS, now + SHOW_NS
        self._caught_up = False

    def admit(self, batch: QuoteBatch) -> QuoteBatch:
        """The rows of the new connection that may overwrite what the old one said last; the others are held back."""
        if not self._caught_up:
            self._own.apply(batch)
        return self._admit(batch)

    def begin(self) -> QuoteBatch:
        """What the new connection said before it took over, as far as it may overwrite what the old one said last."""
        batch = self._own.drain()
        # Without a time of the venue, two empty sides are our own word for a lost connection: the first one's quote stands.
        lost = (
            (batch.fields & Field.QUOTE != 0) & np.isnan(batch.bid) & np.isnan(batch.ask) & (batch.venue_time_ns == 0)
        )
        return self._admit(_rows(batch, ~lost))

    def news(self, events: list[Event]) -> list[Event]:
        """The events of the new connection that are news."""
        for event in events:
            if isinstance(event, BookEvent):
                self.bookless.discard(event.instrument_id)
        if self._caught_up:
            return events
        return [event for event in events if not (isinstance(event, TradeEvent) and event in self._seen)]

    def note(self, batch: QuoteBatch) -> None:
        """These are quoted: by the new connection, or by a book of it."""
        quoted = batch.instrument_id[batch.fields & Field.QUOTE != 0]
        self._missing[quoted[quoted < len(self._missing)]] = False

    def held_back(self, now: int) -> QuoteBatch | None:
        """What was held back, once the new connection must have caught up: its word is then the last."""
        if now < self._caught_up_at or self._caught_up:
            return None
        self._caught_up = True
        held, self._held = self._held, {}
        ids = np.fromiter(held, np.int32, len(held))
        columns = {name: getattr(self._own, name)[ids] for name in COLUMNS}
        return QuoteBatch(ids, np.fromiter(held.values(), np.uint16, len(held)), **columns)

    def missing(self, board: QuoteBoard) -> BoolArray:
        """What the old connection quoted and the new one has not, shape (n,)."""
        return self._missing & _is_quoted(board)[: len(self._missing)]

    def _admit(self, batch: QuoteBatch) -> QuoteBatch:
        self.note(batch)
        if self._caught_up:
            return batch
        ids = batch.instrument_id
        said = np.zeros(len(ids), np.int64)
        known = ids < len(self._said)
        said[known] = self._said[ids[known]]
        late = (batch.venue_time_ns > 0) & (batch.venue_time_ns < said)
        if not late.any() and not self._held:
            return batch
        for row, fields in zip(ids[late].tolist(), batch.fields[late].tolist(), strict=True):
            self._held[row] = self._held.get(row, 0) | fields
        for row in ids[~late].tolist():
            self._held.pop(row, None)
        return _rows(batch, ~late)


def quoted_by(board: QuoteBoard, ids: set[int]) -> BoolArray:
    """Which of some ids show a price on some side, shape (n,) over the whole board."""
    mine = np.zeros(len(board), np.bool_)
    mine[list(ids)] = True
    return mine & _is_quoted(board)


def _is_quoted(board: QuoteBoard) -> BoolArray:
    return np.isfinite(board.bid) | np.isfinite(board.ask)


def _rows(batch: QuoteBatch, wanted: BoolArray) -> QuoteBatch:
    if wanted.all():
        return batch
    columns = {name: getattr(batch, name)[wanted] for name in COLUMNS}
    return QuoteBatch(batch.instrument_id[wanted], batch.fields[wanted], time_ns=batch.time_ns, **columns)


def _remember(trades: dict[TradeEvent, None], trade: TradeEvent) -> None:
    if len(trades) >= _MOST_TRADES:
        del trades[next(iter(trades))]
    trades[trade] = None
