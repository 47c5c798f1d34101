"""What one connection follows of what its venue lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar
from zlib import crc32

from volsurf.instruments import Instrument, Kind, Universe

K = TypeVar("K")


class Change(NamedTuple):
    """Ids that a listing added, and those it ended."""

    added: list[int]
    retired: list[int]


class Catalogue(Generic[K]):
    """The universe of one connection, and which of it is followed now.

    Args:
        shard: `(i, n)`: of n connections this is the i-th; an instrument belongs to one of them for its whole life, by the
            checksum of its symbol. Indexes belong to all, because silence is judged by them.

    Attributes:
        rows: symbol → id of the instruments followed now, indexes apart. index_rows: index name → id.
    """

    def __init__(self, shard: tuple[int, int] = (0, 1)) -> None:
        self.universe = Universe()
        self.rows: dict[str, int] = {}
        self.index_rows: dict[str, int] = {}
        self._shard = shard
        self._key_of: dict[int, K] = {}

    def is_mine(self, symbol: str) -> bool:
        """Whether this connection is the one that follows a symbol."""
        index, count = self._shard
        return count == 1 or crc32(symbol.encode()) % count == index

    def key_of(self, row: int) -> K | None:
        """The listing an instrument came from; None for an index."""
        return self._key_of.get(row)

    def follow(self, instruments: Iterable[Instrument], key: K, *, complete: bool) -> Change:
        """Follow these of one listing, and say which ids are new or have new terms.

        Args:
            instruments: of this connection (see `is_mine`); an index goes to `index_rows`.
            complete: this is the whole listing of `key`: what was followed of it and is not named is `retired`, but stays
                followed until `retire` is called.
        """
        wanted = list(instruments)
        added: list[int] = []
        for instrument in wanted:
            known = self.index_rows if instrument.kind is Kind.INDEX else self.rows
            row = known.get(instrument.symbol)
            if row is not None and self.universe[row] == instrument:
                continue
            row = int(self.universe.add([instrument])[0])
            known[instrument.symbol] = row
            if instrument.kind is not Kind.INDEX:
                self._key_of[row] = key
            added.append(row)
        retired: list[int] = []
        if complete:
            named = {instrument.symbol for instrument in wanted}
            retired = [row for name, row in self.rows.items() if self._key_of[row] == key and name not in named]
        return Change(added, retired)

    def retire(self, rows: Iterable[int]) -> None:
        """Follow these no longer."""
        gone = list(rows)
        for row in gone:
            symbol = self.universe[row].symbol
            if self.rows.get(symbol) == row:
                del self.rows[symbol]
        self.universe.retire(gone)

    def expired(self, before_ns: int) -> list[int]:
        """Ids followed whose expiry lies before a time."""
        return [row for row in self.rows.values() if 0 < self.universe[row].expiry_ns < before_ns]

    @property
    def first_expiry_ns(self) -> int | None:
        """Expiry that comes first among those followed."""
        return min((e for row in self.rows.values() if (e := self.universe[row].expiry_ns) > 0), default=None)
