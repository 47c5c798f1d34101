"""Continuity of Bybit's order books: `u` rises by one a message and topic, and any snapshot starts a book anew."""

from __future__ import annotations

import math

from volsurf.feeds._bybit_messages import Book
from volsurf.feeds._wire import BadLevel, BookGap, nanoseconds
from volsurf.feeds.protocol import BookEvent

_MOST = 1 << 63


class Books:
    """The last `u` of every book of one connection."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._midway: set[int] = set()

    def clear(self) -> None:
        """Every book starts again from its snapshot."""
        self._last.clear()
        self._midway.clear()

    def forget(self, row: int) -> None:
        """This book starts again from its snapshot."""
        self._last.pop(row, None)
        self._midway.discard(row)

    def resume(self, rows: list[int]) -> None:
        """These were being followed: whoever holds them knows them, so the next change of each is taken as the one due."""
        self._midway.update(rows)

    def has(self, row: int) -> bool:
        """A snapshot has come, and every change since."""
        return row in self._last

    def take(self, row: int, book: Book, *, is_snapshot: bool, time_ms: float) -> BookEvent | None:
        """The event of a message; None for a change that came twice, or while a snapshot is awaited.

        Raises:
            BookGap: a change was lost; the book is forgotten until its next snapshot.
            BadLevel: a level that is none; the book is forgotten too.
        """
        last = self._last.get(row)
        if not 0 <= book.u < _MOST:
            self.forget(row)
            raise BadLevel(f"update {book.u}")
        if not is_snapshot:
            if last is None and row in self._midway:
                last = book.u - 1
            # Sizes are absolute, so a change that is here already changes nothing.
            if last is None or book.u == last:
                return None
            if book.u != last + 1:
                self.forget(row)
                raise BookGap(f"update {book.u} follows {last}")
        try:
            bids, asks = _levels(book.b, is_snapshot), _levels(book.a, is_snapshot)
        except BadLevel:
            self.forget(row)
            raise
        self._midway.discard(row)
        self._last[row] = book.u
        return BookEvent(
            instrument_id=row,
            is_snapshot=is_snapshot,
            bids=bids,
            asks=asks,
            sequence=book.u,
            previous_sequence=0 if is_snapshot else book.u - 1,
            venue_time_ns=nanoseconds(time_ms),
        )


def _levels(levels: list[tuple[float, float]], is_snapshot: bool) -> tuple[tuple[float, float], ...]:
    for price, size in levels:
        if not (0 < price < math.inf and 0 <= size < math.inf):
            raise BadLevel(f"{price} {size}")
    return tuple(level for level in levels if level[1] > 0) if is_snapshot else tuple(levels)
