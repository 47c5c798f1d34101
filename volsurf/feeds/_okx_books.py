"""Continuity of OKX's order books: which updates follow the one before, and which books start again."""

from __future__ import annotations

from collections.abc import Iterable

from volsurf.feeds._okx_messages import Book, nanoseconds
from volsurf.feeds._wire import BadLevel, BookGap
from volsurf.feeds.protocol import BookEvent

_MOST = float(1 << 63)
_MOST_SEQUENCE = 1 << 63


class Books:
    """The last `seqId` of every book of one connection."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._midway: set[int] = set()
        self.resets = 0
        """Books that maintenance set to a lower sequence number."""
        self.keep_alives = 0

    def clear(self) -> None:
        """Every book starts again from its snapshot."""
        self._last.clear()
        self._midway.clear()

    def forget(self, row: int) -> None:
        """This book starts again from its snapshot."""
        self._last.pop(row, None)
        self._midway.discard(row)

    def resume(self, rows: Iterable[int]) -> None:
        """These were being followed: whoever holds them knows them, so the next update of each is taken as the one due."""
        self._midway.update(rows)

    def take(self, row: int, book: Book, *, is_snapshot: bool, scale: tuple[float, bool]) -> BookEvent | None:
        """The event of a message; None for a keep-alive, and for an update that comes while a snapshot is awaited.

        An update follows when its `prevSeqId` is the last `seqId`. It may then carry a lower `seqId`: maintenance has reset the
        counter, which goes on from there. One with both numbers equal and no levels only says that the book still stands.

        Args:
            is_snapshot: the message is the whole book: `"action": "snapshot"`, or any message of `books5`.
            scale: what one contract is, see `Values.scale`.

        Raises:
            BookGap: an update was lost; the book is forgotten until its next snapshot.
            BadLevel: a level that is none; the book is forgotten too.
        """
        sequence, previous = book.seqId or 0, book.prevSeqId
        if not 0 <= sequence < _MOST_SEQUENCE or not -1 <= (previous or 0) < _MOST_SEQUENCE:
            self.forget(row)
            raise BadLevel(f"update {sequence} after {previous}")
        last = self._last.get(row)
        if not is_snapshot:
            if last is None:
                if row not in self._midway or previous is None:
                    return None
                last = previous
            if previous != last:
                self.forget(row)
                raise BookGap(f"update {sequence} follows {previous}, the last was {last}")
            if sequence == previous and not book.bids and not book.asks:
                self.keep_alives += 1
                return None
            if sequence < last:
                self.resets += 1
        try:
            bids, asks = _levels(book.bids, *scale), _levels(book.asks, *scale)
        except BadLevel:
            self.forget(row)
            raise
        self._last[row] = sequence
        self._midway.discard(row)
        return BookEvent(
            instrument_id=row,
            is_snapshot=is_snapshot,
            bids=bids,
            asks=asks,
            sequence=sequence,
            previous_sequence=0 if is_snapshot or previous is None else previous,
            venue_time_ns=nanoseconds(book.ts),
        )


def _levels(levels: list[list[float]], unit: float, in_dollars: bool) -> tuple[tuple[float, float], ...]:
    taken = []
    for level in levels:
        # [price, contracts, "0" (once the liquidated orders), orders]
        if len(level) < 2 or not 0 < level[0] < _MOST or not 0 <= level[1] < _MOST:
            raise BadLevel(f"{level}")
        price, contracts = level[0], level[1]
        size = contracts * unit / price if in_dollars else contracts * unit
        if not size < _MOST:
            raise BadLevel(f"{level}")
        taken.append((price, size))
    return tuple(taken)
