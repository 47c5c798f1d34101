"""What one connection has said of each instrument since it was last asked, merged over channels, as one batch.

For venues whose quotes, marks and forwards come in different messages. Messages are decoded once a tick, the newest of each
kind only, so what is written here is a few values per instrument and tick.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan, nan
from typing import Any

import numpy as np

from volsurf.instruments import Universe
from volsurf.quotes import VALUES, Field, QuoteBatch

_STAMPS = ("venue_time_ns", "receive_time_ns", "sequence")
_QUOTE = np.uint16(Field.QUOTE)
_EMPTY = (0, *(nan for _ in VALUES), 0, 0, 0)
_BID, _ASK = 1 + VALUES.index("bid"), 1 + VALUES.index("ask")
_BID_SIZE, _ASK_SIZE = 1 + VALUES.index("bid_size"), 1 + VALUES.index("ask_size")
_LAST, _MARK, _MARK_VOL = 1 + VALUES.index("last"), 1 + VALUES.index("mark"), 1 + VALUES.index("mark_vol")
_FORWARD, _INDEX = 1 + VALUES.index("forward"), 1 + VALUES.index("index")
_VENUE_NS = 1 + len(VALUES)


class Pending:
    """Last values per instrument id since the last `take`. Prices are in the premium's unit, sizes in the underlying's.

    A row's times are those of the newest message about it. NaN as a price says that the side is empty.
    """

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._rows: dict[int, list[float | int]] = {}
        self._parts: list[QuoteBatch] = []
        self._quoted = bytearray(1024)
        """By id: shows a price on some side, as far as has been taken or is about to be."""
        self._shown = bytearray(1024)
        """By id: shows a price on some side, as far as has been taken."""

    def quote(
        self,
        row: int,
        bid: float,
        bid_size: float,
        ask: float,
        ask_size: float,
        venue_ns: int,
        now: int,
        sequence: int = 0,
    ) -> None:
        """Both sides of an instrument; a size where the price is NaN is dropped."""
        values = self._touch(row, Field.QUOTE, venue_ns, now, sequence)
        values[_BID], values[_BID_SIZE] = bid, nan if isnan(bid) else bid_size
        values[_ASK], values[_ASK_SIZE] = ask, nan if isnan(ask) else ask_size
        if row >= len(self._quoted):
            self._grow()
        self._quoted[row] = not (isnan(bid) and isnan(ask))

    def mark(self, row: int, mark: float, mark_vol: float, venue_ns: int, now: int) -> None:
        """The venue's own price and vol (a decimal); NaN for what it does not say."""
        values = self._touch(row, Field.MARK, venue_ns, now)
        values[_MARK], values[_MARK_VOL] = mark, mark_vol

    def last(self, row: int, price: float, venue_ns: int, now: int) -> None:
        """Price of the last trade."""
        self._touch(row, Field.LAST, venue_ns, now)[_LAST] = price

    def forward(self, row: int, value: float, venue_ns: int, now: int) -> None:
        """The venue's forward of an option's expiry."""
        self._touch(row, Field.FORWARD, venue_ns, now)[_FORWARD] = value

    def index(self, row: int, value: float, venue_ns: int, now: int) -> None:
        """The index that an instrument hangs on, or is."""
        self._touch(row, Field.INDEX, venue_ns, now)[_INDEX] = value

    def clear(self, rows: Iterable[int], now: int) -> None:
        """Both sides of these are gone; of what never showed a price nothing is said."""
        for row in rows:
            if row < len(self._quoted) and (self._quoted[row] or self._shown[row]):
                self.quote(row, nan, nan, nan, nan, 0, now)

    def clear_all(self, now: int) -> None:
        """The connection is gone: no price of it is live, and none that was not taken yet will be."""
        self._rows.clear()
        self._parts.clear()
        # That a price is gone was not taken either, so what counts is what has been taken.
        self._quoted[:] = self._shown
        self.clear(np.flatnonzero(np.frombuffer(self._shown, np.bool_)).tolist(), now)

    def add(self, batch: QuoteBatch) -> None:
        """Rows that are columns already: they come after what was said before and overwrite it, group by group."""
        if self._rows:
            self._parts.append(self._columns())
        self._parts.append(batch)
        if len(self._quoted) < len(self._universe):
            self._grow()
        _note(batch, self._quoted)

    def take(self, now: int) -> QuoteBatch | None:
        """Everything said since the last call, or None: of two rows for one instrument the later counts."""
        if self._rows:
            self._parts.append(self._columns())
        if not self._parts:
            return None
        parts, self._parts = self._parts, []
        batch = parts[0] if len(parts) == 1 else _concatenate(parts)
        batch.time_ns = now
        _note(batch, self._shown)
        return batch

    def _columns(self) -> QuoteBatch:
        """What was said row by row, one row per instrument."""
        rows, self._rows = self._rows, {}
        table = list(zip(*rows.values(), strict=True))
        columns: dict[str, Any] = {name: np.array(table[1 + i], np.float64) for i, name in enumerate(VALUES)}
        columns |= {name: np.array(table[_VENUE_NS + i], np.int64) for i, name in enumerate(_STAMPS)}
        ids = np.fromiter(rows, np.int32, len(rows))
        return QuoteBatch(ids, np.array(table[0], np.uint16), **columns)

    def _grow(self) -> None:
        for flags in (self._quoted, self._shown):
            flags.extend(bytes(2 * len(self._universe)))

    def _touch(self, row: int, group: Field, venue_ns: int, now: int, sequence: int = 0) -> list[float | int]:
        values = self._rows.get(row)
        if values is None:
            values = self._rows[row] = list(_EMPTY)
        values[0] = int(values[0]) | int(group)
        values[_VENUE_NS] = max(int(values[_VENUE_NS]), venue_ns)
        values[_VENUE_NS + 1] = max(int(values[_VENUE_NS + 1]), now)
        if sequence:
            values[_VENUE_NS + 2] = sequence
        return values


def _note(batch: QuoteBatch, flags: bytearray) -> None:
    """Note which rows show a price on some side."""
    ids, shown = batch.instrument_id, ~(np.isnan(batch.bid) & np.isnan(batch.ask))
    quotes = (batch.fields & _QUOTE) != 0
    if not quotes.all():
        ids, shown = ids[quotes], shown[quotes]
    np.frombuffer(flags, np.bool_)[ids] = shown


def _concatenate(parts: list[QuoteBatch]) -> QuoteBatch:
    columns: dict[str, Any] = {n: np.concatenate([getattr(part, n) for part in parts]) for n in (*VALUES, *_STAMPS)}
    ids = np.concatenate([part.instrument_id for part in parts])
    return QuoteBatch(ids, np.concatenate([part.fields for part in parts]), **columns)
