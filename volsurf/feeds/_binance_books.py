"""Order books kept from changes and a snapshot over HTTP, by the rules of *How to manage a local order book correctly*.

Changes are held back until a snapshot with an id L is here; those that end before L are dropped; the first one kept must
reach back to L; each next one must follow its predecessor (`pu` = the `u` before), or everything begins again. Option books
are quiet for minutes, so a first change that begins after L is taken too where its `pu` says that nothing lies between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from volsurf.feeds import _binance_messages as wire
from volsurf.feeds._binance_link import Link
from volsurf.feeds._binance_requests import DEPTH_LEVELS, Page
from volsurf.feeds._watch import SECOND
from volsurf.feeds.book import lost_book
from volsurf.feeds.protocol import BookEvent, Health

MOST_HELD = 1000
"""Changes held back for one book."""
_PAUSE = SECOND // 2
_LONGEST_PAUSE = 10 * SECOND
KEY = "depth:"

Levels = Sequence[tuple[float, float]]


class BadLevel(Exception):
    """A level that is none."""


class _Book:
    __slots__ = ("attempts", "held", "is_linked", "last")

    def __init__(self) -> None:
        self.last: int | None = None
        """`u` of the last change, or L of the snapshot; None while there is no snapshot."""
        self.is_linked = False
        """A change has been taken since the snapshot."""
        self.held: deque[wire.Depth] = deque()
        self.attempts = 0


class Books:
    """The books of one connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._books: dict[int, _Book] = {}
        self._resumed = False

    def clear(self) -> None:
        """Every book starts again."""
        self._books.clear()
        self._resumed = False

    def resume(self) -> None:
        """Whoever listens has all books already: a first change follows the last one, which was not heard here."""
        self._resumed = True

    def forget(self, row: int) -> None:
        """This book is not followed any more."""
        book = self._books.pop(row, None)
        if book is not None:
            self._link.rest.drop(KEY + self._symbol(row))
            if book.last is not None:
                self._link.watch.emit(lost_book(row))

    def start(self, row: int) -> None:
        """The changes of this book are subscribed to: ask for its snapshot."""
        if row not in self._books and not self._resumed:
            self._books[row] = _Book()
            self._ask(row)

    def change(self, row: int, depth: wire.Depth, raw: bytes) -> None:
        """A change came."""
        self.start(row)
        if row not in self._books:
            self._books[row] = _Book()
            self._books[row].last, self._books[row].is_linked = depth.pu, True
        book = self._books[row]
        if depth.pu < 0 or depth.u < depth.U:
            self._link.watch.malformed("book", raw)
            self._restart(row)
        elif book.last is None:
            book.held.append(depth)
            if len(book.held) > MOST_HELD:
                book.held.popleft()  # the snapshot then turns out too old, and another is asked for
        else:
            self._apply(row, book, depth, raw)

    def top(self, row: int, depth: wire.Depth, raw: bytes) -> None:
        """The best levels of a book came, whole; their `pu` jumps by thousands and is no gap."""
        book = self._books.setdefault(row, _Book())
        if book.last is not None and depth.u < book.last:
            self._link.counters["book_repeats"] += 1
            return
        try:
            self._emit(row, depth.b, depth.a, depth.u, 0, depth.T or depth.E, is_snapshot=True)
        except BadLevel:
            self._link.watch.malformed("book", raw)
            return
        book.last = depth.u

    def snapshot(self, symbol: str, body: bytes) -> None:
        """A snapshot came; lets decoding errors out."""
        row = self._link.catalogue.rows.get(symbol)
        book = None if row is None else self._books.get(row)
        if row is None or book is None:
            return
        snapshot = wire.decode_snapshot(body)
        last = snapshot.lastUpdateId
        while book.held and book.held[0].u < last:
            book.held.popleft()
        if book.held and not _reaches(book.held[0], last):
            # It was taken before the changes began: another one.
            self._link.counters["book_snapshots_old"] += 1
            self._ask(row)
            return
        try:
            self._emit(row, snapshot.bids, snapshot.asks, last, 0, snapshot.T, is_snapshot=True)
        except BadLevel:
            self._link.watch.malformed("book", body)
            self._restart(row)
            return
        book.last, book.is_linked, book.attempts = last, False, 0
        held, book.held = book.held, deque()
        while held and self._books.get(row) is book and book.last is not None:
            self._apply(row, book, held.popleft(), b"")
        book.held.extend(held)

    def again(self, symbol: str) -> None:
        """The snapshot could not be had: ask again, later."""
        row = self._link.catalogue.rows.get(symbol)
        if row is not None and row in self._books and self._books[row].last is None:
            self._ask(row)

    def _apply(self, row: int, book: _Book, depth: wire.Depth, raw: bytes) -> None:
        last = book.last
        assert last is not None
        follows = depth.pu == last if book.is_linked else _reaches(depth, last)
        if not follows and depth.u <= last:
            self._link.counters["book_repeats"] += 1
            return
        if not follows:
            self._link.counters["book_gaps"] += 1
            said = f"change {depth.U} to {depth.u} follows {depth.pu}, the last was {last}; starting anew"
            self._link.watch.report(Health.GAP, f"{self._symbol(row)}: {said}")
            self._restart(row)
            book.held.append(depth)
            return
        try:
            self._emit(row, depth.b, depth.a, depth.u, last, depth.T or depth.E, is_snapshot=False)
        except BadLevel:
            self._link.watch.malformed("book", raw)
            self._restart(row)
            return
        book.last, book.is_linked = depth.u, True

    def restart(self, row: int) -> None:
        """Something is wrong with this book: it is kept no more until another snapshot is here."""
        if row in self._books:
            self._restart(row)

    def _restart(self, row: int) -> None:
        book = self._books[row]
        if book.last is not None:
            self._link.watch.emit(lost_book(row))
        book.last, book.is_linked = None, False
        book.held.clear()
        self._ask(row)

    def _ask(self, row: int) -> None:
        book, symbol = self._books[row], self._symbol(row)
        pause = min(_LONGEST_PAUSE, _PAUSE * book.attempts)
        book.attempts += 1
        path = f"/eapi/v1/depth?symbol={symbol}&limit={DEPTH_LEVELS}"
        self._link.rest.submit(Page(KEY + symbol, path, not_before=self._link.watch.elapsed + pause))

    def _symbol(self, row: int) -> str:
        return self._link.catalogue.universe[row].symbol

    def _emit(
        self, row: int, bids: Levels, asks: Levels, sequence: int, previous: int, time_ms: int, *, is_snapshot: bool
    ) -> None:
        unit = self._link.catalogue.universe[row].contract_size
        event = BookEvent(
            instrument_id=row,
            is_snapshot=is_snapshot,
            bids=_levels(bids, unit),
            asks=_levels(asks, unit),
            sequence=sequence,
            previous_sequence=previous,
            venue_time_ns=wire.nanoseconds(time_ms),
        )
        self._link.watch.emit(event)


def _reaches(depth: wire.Depth, last: int) -> bool:
    """Whether a first change joins a snapshot: it covers its id, or follows one that the snapshot has."""
    return min(depth.U, depth.pu) <= last <= depth.u


def _levels(levels: Levels, unit: float) -> tuple[tuple[float, float], ...]:
    taken = []
    for price, quantity in levels:
        size = quantity * unit
        if not 0 < price / unit < float("inf") or not 0 <= size < float("inf"):
            raise BadLevel(f"{price} {quantity}")
        taken.append((price / unit, size))
    return tuple(taken)
