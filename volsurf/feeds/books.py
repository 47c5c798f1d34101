"""All order books of a feed, as a table: what each is worth, its top and its depth, and which have changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.feeds.book import Applied, BookState, OrderBook
from volsurf.feeds.protocol import BookEvent
from volsurf.instruments import FloatArray, IdArray, IntArray, Universe
from volsurf.quotes import Field, QuoteBatch

if TYPE_CHECKING:
    import polars as pl

DEPTH_LEVELS = 5
"""Levels of a side whose sizes are its depth: what the shallowest channel of any venue here shows."""
DOUBT_NS = 2_000_000_000
"""A book crossed for longer than any late deletion explains has lost a change, and a snapshot asked for so long ago is lost."""


class BookTable:
    """The books of the instruments of a universe.

    Attributes:
        counters: events by what became of them (`changed`, `unchanged`, `gap`, `awaited`, `bad_level`), `crossed`, `locked`.
    """

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._books: dict[int, OrderBook] = {}
        self._received: dict[int, int] = {}
        self._dirty: dict[int, None] = {}
        self._shown: set[int] = set()
        self._doubted_since: dict[int, int] = {}
        self._locked: set[int] = set()
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._books)

    def __repr__(self) -> str:
        states = Counter(book.state.name.lower() for book in self._books.values())
        return f"BookTable({len(self)} books: {', '.join(f'{n} {state}' for state, n in states.items()) or 'none'})"

    def __getitem__(self, instrument_id: int) -> OrderBook:
        """The book of an instrument; KeyError where no event of one has come."""
        return self._books[instrument_id]

    def get(self, instrument_id: int) -> OrderBook | None:
        """The book of an instrument, or None."""
        return self._books.get(instrument_id)

    def apply(self, event: BookEvent, now: int) -> Applied:
        """Take one event, received at `now`, ns UTC."""
        row = event.instrument_id
        book = self._books.get(row)
        if book is None:
            book = self._books[row] = OrderBook()
        applied = book.apply(event)
        self.counters[applied.name.lower()] += 1
        if applied is Applied.AWAITED:
            return applied
        self._received[row] = now
        self._dirty[row] = None
        self._note_state(row, book.state, now)
        return applied

    def clear(self, ids: Iterable[int]) -> None:
        """These books are no longer followed, or their connection is gone."""
        for row in ids:
            if (book := self._books.get(row)) is not None:
                book.clear()
                self._dirty[row] = None
                self._doubted_since.pop(row, None)
                self._locked.discard(row)

    def drop(self, ids: Iterable[int]) -> None:
        """Forget books of instruments that are no longer listed."""
        for row in ids:
            self._books.pop(row, None)
            self._received.pop(row, None)
            self._dirty.pop(row, None)
            self._doubted_since.pop(row, None)
            self._locked.discard(row)
            self._shown.discard(row)

    def doubtful(self, now: int) -> list[int]:
        """Books that have been crossed, or have waited for a snapshot since a gap, for more than `DOUBT_NS`: ask the venue for
        a new snapshot. Each is said once in that time."""
        found = [row for row, since in self._doubted_since.items() if now - since > DOUBT_NS]
        for row in found:
            self._doubted_since[row] = now
        return found

    def take_quotes(self, now: int) -> QuoteBatch | None:
        """Top and depth of the books that changed since the last call, one row each, or None.

        A crossed or locked top is handed on as it is, for the quote ledger to name; a book that waits for its snapshot after it
        showed a price gives two empty sides.
        """
        rows: list[int] = []
        table: list[tuple[float, ...]] = []
        for row in self._dirty:
            book = self._books[row]
            if book.state is BookState.WAITING and row not in self._shown:
                continue
            (self._shown.add if len(book) else self._shown.discard)(row)
            bid_depth, ask_depth = book.depth(DEPTH_LEVELS)
            rows.append(row)
            table.append(
                (
                    book.best_bid,
                    book.best_bid_size,
                    book.best_ask,
                    book.best_ask_size,
                    bid_depth or nan,
                    ask_depth or nan,
                )
            )
        times = [(self._books[row].venue_time_ns, self._received[row], self._books[row].sequence) for row in rows]
        self._dirty.clear()
        if not rows:
            return None
        bid, bid_size, ask, ask_size, bid_depth_column, ask_depth_column = np.array(table, np.float64).T
        venue_time_ns, receive_time_ns, sequence = np.array(times, np.int64).T
        return QuoteBatch(
            rows,
            Field.QUOTE | Field.DEPTH,
            bid=bid,
            bid_size=bid_size,
            ask=ask,
            ask_size=ask_size,
            bid_depth=bid_depth_column,
            ask_depth=ask_depth_column,
            venue_time_ns=venue_time_ns,
            receive_time_ns=receive_time_ns,
            sequence=sequence,
            time_ns=now,
        )

    def snapshots(self) -> list[BookEvent]:
        """Every book that holds one, as the event that makes it, in order of instrument id."""
        found = (self._books[row].snapshot(row) for row in sorted(self._books))
        return [event for event in found if event is not None]

    def columns(self, levels: int = DEPTH_LEVELS) -> BookColumns:
        """All books as arrays, in order of instrument id."""
        return BookColumns.of(self._books, levels)

    def to_polars(self, levels: int = DEPTH_LEVELS) -> pl.DataFrame:
        """One row per book: venue, symbol, state, sequence, times, and `bid_0, bid_size_0, ask_0, …` best first."""
        import polars as pl

        columns = self.columns(levels)
        rows = [self._universe[int(i)] for i in columns.instrument_id]
        data: dict[str, object] = {
            "venue": [row.venue for row in rows],
            "symbol": [row.symbol for row in rows],
            "state": [BookState(int(state)).name.lower() for state in columns.state],
            "sequence": columns.sequence,
            "venue_time_ns": columns.venue_time_ns,
        }
        for level in range(levels):
            for name in ("bid", "bid_size", "ask", "ask_size"):
                data[f"{name}_{level}"] = getattr(columns, name)[:, level]
        return pl.DataFrame(data)

    def _note_state(self, row: int, state: BookState, now: int) -> None:
        if state is BookState.CROSSED or state is BookState.WAITING:
            if row not in self._doubted_since:
                self._doubted_since[row] = now
                if state is BookState.CROSSED:
                    self.counters["crossed"] += 1
        else:
            self._doubted_since.pop(row, None)
        if state is BookState.LOCKED:
            if row not in self._locked:
                self._locked.add(row)
                self.counters["locked"] += 1
        else:
            self._locked.discard(row)


@dataclass(frozen=True, slots=True, eq=False)
class BookColumns:
    """Books as arrays, best levels first, NaN beyond a book's depth."""

    instrument_id: IdArray
    """Shape (n,)."""
    state: npt.NDArray[np.int8]
    """`BookState` values, shape (n,)."""
    sequence: IntArray
    venue_time_ns: IntArray
    bid: FloatArray
    """Shape (n, levels)."""
    bid_size: FloatArray
    ask: FloatArray
    ask_size: FloatArray

    @classmethod
    def of(cls, books: dict[int, OrderBook], levels: int) -> BookColumns:
        """Columns of some books, by id."""
        ids = sorted(books)
        sides = np.full((2, len(ids), levels, 2), np.nan)
        for at, i in enumerate(ids):
            for side, found in zip(sides, books[i].levels(levels), strict=True):
                side[at, : len(found)] = found
        return cls(
            np.array(ids, np.int32),
            np.array([books[i].state for i in ids], np.int8),
            np.array([books[i].sequence for i in ids], np.int64),
            np.array([books[i].venue_time_ns for i in ids], np.int64),
            sides[0, ..., 0],
            sides[0, ..., 1],
            sides[1, ..., 0],
            sides[1, ..., 1],
        )
