"""One instrument's order book, kept from a snapshot and the changes after it.

    book = vs.OrderBook()
    for event in feed.events:
        if isinstance(event, BookEvent) and event.instrument_id == wanted:
            book.apply(event)
    book.best_bid, book.price_for(25.0)

Sizes are absolute and 0 deletes, as every venue here sends them. A change that does not follow the one before it empties the
book until the next snapshot: no price of a book with a hole in it is shown.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from enum import IntEnum
from math import inf, nan

import numpy as np

from volsurf.errors import InputError
from volsurf.feeds.protocol import BookEvent
from volsurf.instruments import FloatArray


class BookState(IntEnum):
    """What a book is worth now."""

    WAITING = 0
    """No snapshot yet, or none since a gap."""
    EMPTY = 1
    ONE_SIDED = 2
    OPEN = 3
    """Both sides, the best bid below the best ask."""
    LOCKED = 4
    """The best bid is the best ask."""
    CROSSED = 5
    """The best bid is above the best ask: an auction, or deletions that have not come yet."""


class Applied(IntEnum):
    """What became of one event."""

    CHANGED = 0
    UNCHANGED = 1
    """Keep-alives, and levels set to what they were."""
    GAP = 2
    """It does not follow the last one: the book waits for a snapshot."""
    AWAITED = 3
    """A change while a snapshot is awaited: passed over."""
    BAD_LEVEL = 4
    """A price or size that cannot be: the book waits for a snapshot."""


class _Side:
    """Prices in rising order, and the size at each."""

    __slots__ = ("is_bid", "prices", "sizes")

    def __init__(self, is_bid: bool) -> None:
        self.is_bid = is_bid
        self.prices: list[float] = []
        self.sizes: dict[float, float] = {}

    def replace(self, levels: tuple[tuple[float, float], ...]) -> bool:
        sizes = {price: size for price, size in levels if size > 0}
        changed = sizes != self.sizes
        self.sizes, self.prices = sizes, sorted(sizes)
        return changed

    def set(self, price: float, size: float) -> bool:
        known = self.sizes.get(price)
        if size > 0:
            self.sizes[price] = size
            if known is None:
                insort(self.prices, price)
            return known != size
        # Venues delete levels they never showed: those beyond the depth that was subscribed to.
        if known is None:
            return False
        del self.sizes[price]
        del self.prices[bisect_left(self.prices, price)]
        return True

    @property
    def best(self) -> float:
        if not self.prices:
            return nan
        return self.prices[-1] if self.is_bid else self.prices[0]

    def top(self, count: int) -> list[float]:
        """Prices of the best levels, best first."""
        return self.prices[: -count - 1 : -1] if self.is_bid else self.prices[:count]


class OrderBook:
    """Levels of one instrument. Prices are in its premium's unit, sizes in units of the underlying.

    Attributes:
        sequence: the venue's number of the last event taken. venue_time_ns: its time.
        gaps: changes that did not follow. snapshots: books started.
    """

    __slots__ = ("_asks", "_bids", "_waiting", "gaps", "sequence", "snapshots", "venue_time_ns")

    def __init__(self) -> None:
        self._bids, self._asks = _Side(True), _Side(False)
        self._waiting = True
        self.sequence = 0
        self.venue_time_ns = 0
        self.gaps = 0
        self.snapshots = 0

    def __repr__(self) -> str:
        return f"OrderBook({self.state.name}, {self.best_bid:g} × {self.best_ask:g}, {len(self)} levels)"

    def __len__(self) -> int:
        """Levels on both sides."""
        return len(self._bids.prices) + len(self._asks.prices)

    def apply(self, event: BookEvent) -> Applied:
        """Take the next event of this instrument."""
        if not event.is_snapshot:
            if self._waiting:
                return Applied.AWAITED
            if event.previous_sequence != self.sequence:
                self.gaps += 1
                self.clear()
                return Applied.GAP
        if not all(0.0 < price < inf and 0.0 <= size < inf for price, size in (*event.bids, *event.asks)):
            self.clear()
            return Applied.BAD_LEVEL
        changed = self._waiting
        if event.is_snapshot:
            self.snapshots += 1
            self._waiting = False
            changed |= self._bids.replace(event.bids)
            changed |= self._asks.replace(event.asks)
        else:
            for price, size in event.bids:
                changed |= self._bids.set(price, size)
            for price, size in event.asks:
                changed |= self._asks.set(price, size)
        self.sequence, self.venue_time_ns = event.sequence, event.venue_time_ns
        return Applied.CHANGED if changed else Applied.UNCHANGED

    def clear(self) -> None:
        """Wait for the next snapshot."""
        self._bids.replace(())
        self._asks.replace(())
        self._waiting = True

    @property
    def state(self) -> BookState:
        """What it is worth now."""
        if self._waiting:
            return BookState.WAITING
        if not self._bids.prices or not self._asks.prices:
            return BookState.ONE_SIDED if len(self) else BookState.EMPTY
        gap = self._asks.prices[0] - self._bids.prices[-1]
        return BookState.OPEN if gap > 0 else BookState.CROSSED if gap < 0 else BookState.LOCKED

    @property
    def best_bid(self) -> float:
        """Highest bid; NaN where there is none."""
        return self._bids.best

    @property
    def best_ask(self) -> float:
        """Lowest ask; NaN where there is none."""
        return self._asks.best

    @property
    def best_bid_size(self) -> float:
        """Size at the best bid; NaN where there is none."""
        return self._bids.sizes.get(self._bids.best, nan)

    @property
    def best_ask_size(self) -> float:
        """Size at the best ask; NaN where there is none."""
        return self._asks.sizes.get(self._asks.best, nan)

    @property
    def micro_price(self) -> float:
        """Mean of bid and ask, each weighted with the size on the other side; NaN without both."""
        bid, ask, bid_size, ask_size = self.best_bid, self.best_ask, self.best_bid_size, self.best_ask_size
        return (bid * ask_size + ask * bid_size) / (bid_size + ask_size)

    def depth(self, levels: int = 5) -> tuple[float, float]:
        """Size in the best levels of bids and asks, 0 where there are none."""
        bid, ask = (sum(side.sizes[price] for price in side.top(levels)) for side in (self._bids, self._asks))
        return bid, ask

    def price_for(self, size: float) -> tuple[float, float]:
        """Average price at which `size` could be sold and bought at once: `(into bids, from asks)`; NaN where it does not fit.

        Raises:
            InputError: the size is not positive and finite.
        """
        if not 0.0 < size < inf:
            raise InputError(f"a size to trade must be positive and finite, was {size!r}")
        return _walk(self._bids, size), _walk(self._asks, size)

    def levels(self, count: int | None = None) -> tuple[FloatArray, FloatArray]:
        """Bids and asks, best first, each of shape (levels, 2): price and size."""
        count = len(self) if count is None else count
        bids, asks = ([(p, side.sizes[p]) for p in side.top(count)] for side in (self._bids, self._asks))
        return np.array(bids, np.float64).reshape(-1, 2), np.array(asks, np.float64).reshape(-1, 2)

    def snapshot(self, instrument_id: int) -> BookEvent | None:
        """The event that makes this book; None while it waits for one itself."""
        if self._waiting:
            return None
        bids, asks = (tuple((p, side.sizes[p]) for p in side.top(len(self))) for side in (self._bids, self._asks))
        return BookEvent(instrument_id, True, bids, asks, self.sequence, 0, self.venue_time_ns)


def lost_book(instrument_id: int) -> BookEvent:
    """A change that follows nothing: whoever keeps this book empties it and waits for the next snapshot.

    What a venue emits when it finds a gap itself, so that no book with a hole in it is shown until the snapshot comes.
    """
    return BookEvent(instrument_id, False, (), (), sequence=0, previous_sequence=-1, venue_time_ns=0)


def _walk(side: _Side, size: float) -> float:
    left, paid = size, 0.0
    for price in side.top(len(side.prices)):
        taken = min(left, side.sizes[price])
        paid += taken * price
        left -= taken
        if left <= 0:
            return paid / size
    return nan
