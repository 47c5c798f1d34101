"""Continuity of Deribit's order books: which changes follow the one before, and which books start again."""

from __future__ import annotations

import math
from collections.abc import Iterable

from volsurf.feeds._deribit_messages import Book
from volsurf.feeds._wire import BadLevel, BookGap, nanoseconds
from volsurf.feeds.protocol import BookEvent

_ACTIONS = ("new", "change", "delete")
_MOST = 1 << 63


class Books:
    """The last `change_id` of every book of one connection. Ids are global and jump; only their linkage counts."""

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

    def resume(self, rows: Iterable[int]) -> None:
        """These were being followed: whoever holds them knows them, so the next change of each is taken as the one due."""
        self._midway.update(rows)

    def take(self, row: int, book: Book, *, in_dollars: bool) -> BookEvent | None:
        """The event of a message; None for a change that comes while a snapshot is awaited.

        Args:
            in_dollars: the amounts are dollars (inverse futures), to be turned into units of the underlying.

        Raises:
            BookGap: a change was lost; the book is forgotten until its next snapshot.
            BadLevel: a level that is none; the book is forgotten too.
        """
        if not all(0 <= number < _MOST for number in (book.change_id, book.prev_change_id or 0)):
            self.forget(row)
            raise BadLevel(f"change {book.change_id} after {book.prev_change_id}")
        last = self._last.get(row)
        previous = None if book.prev_change_id is None else int(book.prev_change_id)
        # The first fill of an empty book came as a change from 0 (seen in 2021): with no book held, that is the whole of it.
        is_snapshot = book.type == "snapshot" or previous is None or (previous == 0 and last is None)
        if not is_snapshot and last is None:
            if row not in self._midway:
                return None
            last = previous
        if not is_snapshot and previous != last:
            self.forget(row)
            raise BookGap(f"change {book.change_id} follows {previous}, the last was {last}")
        try:
            bids, asks = _levels(book.bids, in_dollars), _levels(book.asks, in_dollars)
        except BadLevel:
            self.forget(row)
            raise
        self._last[row] = int(book.change_id)
        self._midway.discard(row)
        return BookEvent(
            instrument_id=row,
            is_snapshot=is_snapshot,
            bids=bids,
            asks=asks,
            sequence=int(book.change_id),
            previous_sequence=0 if previous is None else previous,
            venue_time_ns=nanoseconds(book.timestamp),
        )


def _levels(levels: list[tuple[str, float, float]], in_dollars: bool) -> tuple[tuple[float, float], ...]:
    # Amounts are absolute, and a level may be "new" twice: both words mean "set".
    taken = []
    for action, price, amount in levels:
        if action not in _ACTIONS or not (0 < price < math.inf) or amount < 0:
            raise BadLevel(f"{action} {price} {amount}")
        size = amount / price if in_dollars else amount
        if size == math.inf:
            raise BadLevel(f"{action} {price} {amount}")
        taken.append((price, 0.0 if action == "delete" else size))
    return tuple(taken)
