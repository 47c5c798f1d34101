"""What the two routes have in common: to follow what is listed, and to let go of what is not.

Which streams live where is part of the protocol: a stream asked for on the other route is acknowledged and stays silent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from msgspec import Raw

from volsurf.feeds._binance_link import Link
from volsurf.feeds._catalogue import Change
from volsurf.feeds.protocol import InstrumentEvent
from volsurf.instruments import Instrument
from volsurf.quotes import QuoteBatch


class Route(ABC):
    """One connection's side of a route. `name` is part of its address."""

    name: str
    KEY = "listed"
    """There is one listing."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def follow(self) -> None:
        """Take up what the group lists or assigns now, and ask for its streams."""
        link = self._link
        change = link.catalogue.follow(self._instruments(), self.KEY, complete=True)
        gone = [row for row in change.retired if link.catalogue.universe[row].symbol not in link.group.options]
        self._leave(change, gone)
        if change.added:
            link.watch.emit(InstrumentEvent(added=tuple(change.added)))
        link.subscribe(self.streams())
        link.note_expiries()

    def retire(self, rows: list[int]) -> None:
        """These have expired."""
        if rows:
            self._leave(Change([], rows), rows)
            self._link.subscribe(self.streams())
            self._link.note_expiries()

    def _leave(self, change: Change, gone: list[int]) -> None:
        # What is merely followed elsewhere from now on is still listed, and its last quote still stands.
        link = self._link
        self.drop(change.retired)
        self.clear(gone, link.watch.now)
        link.catalogue.retire(change.retired)
        if gone:
            link.watch.emit(InstrumentEvent(retired=tuple(gone)))

    def drop(self, rows: list[int]) -> None:
        """These are not followed here any more."""
        del rows

    @abstractmethod
    def new_socket(self) -> None:
        """Forget what belonged to the old one."""

    @abstractmethod
    def _instruments(self) -> list[Instrument]: ...

    @abstractmethod
    def streams(self) -> list[str]:
        """Streams of what is followed now, at most 200."""

    @abstractmethod
    def granted(self, streams: tuple[str, ...]) -> None:
        """Streams were acknowledged."""

    @abstractmethod
    def take(self, kind: str, data: Raw, message: bytes, now: int) -> bool:
        """Take a payload; lets decoding errors out. False where this route has no use for its kind."""

    @abstractmethod
    def take_quotes(self, now: int) -> QuoteBatch | None:
        """What changed since the last call."""

    @abstractmethod
    def clear(self, rows: list[int], now: int) -> None:
        """Both sides of these options are gone."""

    @abstractmethod
    def lost(self, symbols: set[str], now: int) -> None:
        """The socket is gone, and with it the quotes of these, which were written here last."""

    @abstractmethod
    def lost_stream(self) -> str:
        """Why the connection must be opened again although it answers; "" where it need not."""

    def timer(self, now: int) -> None:
        """Do what is due."""
        del now

    def resume(self) -> None:
        """Everything asked for is granted, and has been for long."""
        self.granted(tuple(self._link.asked))

    def restart_book(self, row: int) -> None:
        """Ask for a new snapshot of a book."""
        del row

    def silences(self) -> dict[str, tuple[int, int]]:
        """What should keep coming: since when it has not, and how long it may be silent, both ns."""
        return self._link.watch.silences

    def snapshot(self, symbol: str, body: bytes) -> None:
        """The snapshot of a book came."""
        del symbol, body

    def no_snapshot(self, symbol: str) -> None:
        """The snapshot of a book could not be had."""
        del symbol
