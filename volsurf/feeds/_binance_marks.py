"""Whole chains of marks, turned into columns once a tick.

A frame of 752 options comes once a second and holds best bid and ask, mark, vol, index and carry of each. It is kept as the
bytes it came as; one that is overwritten before anybody looks is never decoded.

The venue has no field for the forward. What it prices with, checked on captured rows to 0.007 USDT and better:
`F = i·exp(rf·T)` and `mp = exp(−rf·T)·Black76(F, K, T, vo)`, T in years ACT/365. So a premium here is a present value, with the
discount factor `i / F`: both are given on every row, and whoever divides by D·F divides by the index.
"""

from __future__ import annotations

import math
from itertools import chain, compress, repeat
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.feeds import _binance_messages as wire
from volsurf.feeds._binance_group import ABSURD_MS, NEVER, Top
from volsurf.feeds._binance_link import Link
from volsurf.feeds._binance_listing import VENUE
from volsurf.feeds._watch import SECOND
from volsurf.feeds.protocol import Health, VenueGreeks
from volsurf.instruments import BoolArray, FloatArray, IntArray, Universe, years_between
from volsurf.quotes import VALUES, Field, QuoteBatch

LOWEST_VOL = 1e-6
"""-1.0 stands for no quote, 0.00000060 for a price below intrinsic: neither is a vol."""
HIGHEST_CARRY = 1.0
"""Of what can be one: 0.053 was usual in 2026."""
GONE_AFTER = 5 * SECOND
"""An option that its chain's frames, which come every second, have not named for so long is quoted no more."""
_KEY = 96
"""Bytes of a message up to and beyond its first symbol: a chain in several messages would begin with several."""
_MOST_UNREAD = 8
_NUMBERS = ("E", "mp", "i", "rf", "vo", "bo", "bq", "ao", "aq")
_numbers = attrgetter(*_NUMBERS)
_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError)


class Marks:
    """Last frame of each chain and last index prices since the last `take`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._unread: dict[bytes, tuple[bytes, int, int, bytes]] = {}
        self._indexes: dict[int, tuple[float, int, int]] = {}
        self._cleared: dict[int, int] = {}
        # By id: shows a price on some side, last venue time in ms, elapsed ns of the last frame that named it (-1: none).
        self._quoted: BoolArray = np.zeros(0, np.bool_)
        self._marked_ms: IntArray = np.zeros(0, np.int64)
        self._heard: IntArray = np.zeros(0, np.int64)
        self._frames_heard = 0
        self._tops = np.zeros((0, 4))
        self._taken: dict[bytes, bytes] = {}
        """The last frames taken, for whoever wants the greeks in them."""

    def receive(self, data: bytes, now: int) -> None:
        """Keep a frame until the next tick, unless a newer one is kept already."""
        key, stamp = data[:_KEY], _stamp(data)
        known = self._unread.pop(key, None)  # so that the order is that of arrival
        if known is not None and len(stamp) == len(known[3]) and stamp < known[3]:
            self._unread[key] = known
            self._link.counters["mark_stale"] += 1
            return
        if len(self._unread) >= _MOST_UNREAD:
            del self._unread[next(iter(self._unread))]
        self._unread[key] = data, now, self._link.watch.elapsed, stamp

    def set_index(self, row: int, price: float, venue_ns: int, now: int) -> None:
        """Last price of an index, unless a newer one is here."""
        known = self._indexes.get(row)
        if known is None or venue_ns >= known[1]:
            self._indexes[row] = price, venue_ns, now

    def clear(self, rows: list[int], now: int) -> None:
        """Both sides of these options are gone."""
        self._grow()
        for row in rows:
            self._heard[row] = -1
            if self._quoted[row]:
                self._cleared[row] = now

    def lost(self, symbols: set[str], now: int) -> None:
        """The connection is gone: no price that stands only here is live, and none that was not taken yet will be."""
        self._unread.clear()
        self._indexes.clear()
        self._grow()
        self._heard[:] = -1
        self._marked_ms[:] = 0
        rows = self._link.catalogue.rows
        everything = not self._link.group.publics
        gone = rows.values() if everything else (rows[symbol] for symbol in symbols if symbol in rows)
        self._cleared = {row: now for row in sorted(gone) if self._quoted[row]}

    def top(self, symbol: str) -> Top | None:
        """The quote of an option in the last frame that named it."""
        row = self._link.catalogue.rows.get(symbol)
        if row is None or row >= len(self._quoted):
            return None
        bid, bid_size, ask, ask_size = self._tops[row].tolist()
        return bid, bid_size, ask, ask_size

    def greeks(self, symbol: str) -> VenueGreeks | None:
        """What the last frame taken that names an option says of its vols and greeks."""
        name = b'"' + symbol.encode() + b'"'
        for data in reversed(self._taken.values()):
            at = data.find(name)
            if at < 0:
                continue
            try:
                row = wire.decode_greeks(data[data.rfind(b"{", 0, at) : data.find(b"}", at) + 1])
            except _ERRORS:
                continue
            if row.s == symbol:
                return greeks_of(row, self._link.catalogue.universe)
        return None

    def notice_gone(self, now: int) -> list[int]:
        """Options that the frames of their chain name no more: their quotes are cleared. Returns their ids."""
        self._grow()
        late = (self._heard >= 0) & (self._frames_heard - self._heard > GONE_AFTER)
        if not late.any():
            return []
        universe, quoted = self._link.catalogue.universe, self._link.group.quoted
        rows: list[int] = np.flatnonzero(late).tolist()
        for row in rows:
            quoted.pop(universe[row].symbol, None)
        self.clear(rows, now)
        return rows

    def take(self, now: int) -> QuoteBatch | None:
        """One row per option of the frames since the last call, and per index, or None."""
        self._grow()
        parts = []
        cleared, self._cleared = self._cleared, {}
        if cleared:
            self._quoted[list(cleared)] = False
            parts.append(QuoteBatch(list(cleared), Field.QUOTE, receive_time_ns=list(cleared.values())))
        unread, self._unread = self._unread, {}
        for key, (data, heard, elapsed, _) in unread.items():
            self._taken.pop(key, None)
            self._taken[key] = data
            if len(self._taken) > _MOST_UNREAD:
                del self._taken[next(iter(self._taken))]
            if marks := self._decode(data):
                parts.append(self._chain(marks, heard, elapsed))
        if self._indexes:
            rows, values = list(self._indexes), list(self._indexes.values())
            price, venue_ns, received = zip(*values, strict=True)
            batch = QuoteBatch(rows, Field.INDEX, index=price, venue_time_ns=venue_ns, receive_time_ns=received)
            parts.append(batch)
            self._indexes = {}
        parts = [part for part in parts if len(part)]
        if not parts:
            return None
        batch = parts[0] if len(parts) == 1 else _concatenate(parts)
        batch.time_ns = now
        return batch

    def _decode(self, data: bytes) -> list[wire.Mark]:
        try:
            marks: list[wire.Mark] = (
                wire.decode_marks(data) if data.startswith(b"[") else wire.decode_marks_message(data).data
            )
            return marks
        except _ERRORS:
            pass
        # Something in it is not what it should be: save what is.
        watch, saved = self._link.watch, []
        try:
            rows = wire.decode_rows(data if data.startswith(b"[") else wire.decode_message(data).data)
        except _ERRORS as error:
            watch.malformed(wire.malformed_cause(error), data)
            return []
        for raw in rows:
            try:
                saved += wire.decode_marks(b"[%b]" % bytes(raw))
            except _ERRORS as error:
                watch.malformed(wire.malformed_cause(error), bytes(raw))
        return saved

    def _chain(self, marks: list[wire.Mark], heard: int, elapsed: int) -> QuoteBatch:
        link = self._link
        get = link.catalogue.rows.get
        rows = np.array([get(mark.s, -1) for mark in marks], np.int32)
        table = np.fromiter(chain.from_iterable(map(_numbers, marks)), np.float64, len(_NUMBERS) * len(marks))
        table = table.reshape(-1, len(_NUMBERS))
        known = rows >= 0
        link.counters["mark_rows"] += len(marks)
        if not known.all():
            link.counters["mark_unknown"] += int((~known).sum())
            link.listing_wanted = True
        if not known.any():
            return QuoteBatch(rows[:0], 0)
        time_ms = table[:, 0].astype(np.int64)
        behind = np.where(known, self._marked_ms[rows] - time_ms, 1)
        known &= (behind <= 0) | (behind > ABSURD_MS)
        if not known.all():
            link.counters["mark_stale"] += int((behind > 0)[rows >= 0].sum())
            rows, table, time_ms = rows[known], table[known], time_ms[known]
            marks = [mark for mark, keep in zip(marks, known.tolist(), strict=True) if keep]
        if not len(rows):
            return QuoteBatch(rows, 0)
        self._marked_ms[rows] = time_ms
        self._heard[rows] = self._frames_heard = elapsed
        return self._columns(rows, time_ms, table, self._is_newest(marks, time_ms), heard)

    def _is_newest(self, marks: list[wire.Mark], time_ms: IntArray) -> BoolArray:
        """Where no quote of another connection is as new as these."""
        group, member = self._link.group, self._link.member
        if not group.publics:
            return np.ones(len(marks), np.bool_)
        quoted, symbols = group.quoted, [mark.s for mark in marks]
        last_ms = np.array([quoted.get(symbol, NEVER)[0] for symbol in symbols], np.int64)
        newest: BoolArray = (time_ms > last_ms) | (last_ms - time_ms > ABSURD_MS)
        written = zip(symbols, zip(time_ms.tolist(), repeat(0), repeat(member), strict=False), strict=True)
        quoted.update(written if newest.all() else compress(written, newest.tolist()))
        group.top_of_chain = self.top
        return newest

    def _columns(
        self, rows: npt.NDArray[np.int32], time_ms: IntArray, table: FloatArray, newest: BoolArray, heard: int
    ) -> QuoteBatch:
        universe = self._link.catalogue.universe
        unit, expiry_ns = universe.contract_size[rows], universe.expiry_ns[rows]
        _, mark, index, carry, vol, bid, bid_size, ask, ask_size = table.T
        possible = (time_ms > 0) & (time_ms < 9_000_000_000_000)
        venue_ns = np.where(possible, time_ms, 0) * 1_000_000
        bid, bid_size = _side(bid, bid_size, unit)
        ask, ask_size = _side(ask, ask_size, unit)
        years = np.maximum(years_between(venue_ns, expiry_ns), 0.0)
        priced = (index > 0) & (index < np.inf)
        carried = priced & possible & (np.abs(carry) < HIGHEST_CARRY) & (np.abs(carry) * years < HIGHEST_CARRY)
        forward = np.where(carried, index * np.exp(np.where(carried, carry * years, 0.0)), np.nan)
        marked = (mark >= 0) & (mark < np.inf)
        fields = np.where(newest, np.uint16(Field.QUOTE), np.uint16(0))
        fields[marked] |= np.uint16(Field.MARK)
        fields[carried] |= np.uint16(Field.FORWARD)
        fields[priced] |= np.uint16(Field.INDEX)
        self._quoted[rows[newest]] = ~(np.isnan(bid) & np.isnan(ask))[newest]
        self._tops[rows] = np.column_stack((bid, bid_size, ask, ask_size))
        batch = QuoteBatch(
            rows,
            fields,
            bid=np.where(newest, bid, np.nan),
            ask=np.where(newest, ask, np.nan),
            bid_size=np.where(newest, bid_size, np.nan),
            ask_size=np.where(newest, ask_size, np.nan),
            mark=np.where(marked, mark / unit, np.nan),
            mark_vol=np.where(marked & (vol > LOWEST_VOL) & (vol < np.inf), vol, np.nan),
            forward=forward,
            index=np.where(priced, index, np.nan),
            venue_time_ns=venue_ns,
            receive_time_ns=heard,
        )
        return _without_empty(batch)

    def _grow(self) -> None:
        extra = len(self._link.catalogue.universe) - len(self._quoted)
        if extra > 0:
            self._quoted = np.concatenate((self._quoted, np.zeros(extra, np.bool_)))
            self._tops = np.concatenate((self._tops, np.full((extra, 4), np.nan)))
            self._marked_ms = np.concatenate((self._marked_ms, np.zeros(extra, np.int64)))
            self._heard = np.concatenate((self._heard, np.full(extra, -1, np.int64)))

    def report_gone(self, rows: list[int]) -> None:
        """Say which options their chain's frames name no more, and have the listings read."""
        link = self._link
        link.counters["gone_from_chain"] += len(rows)
        link.listing_wanted = True
        first = link.catalogue.universe[rows[0]].symbol
        link.watch.report(Health.STALE, f"{len(rows)} options are no longer in their chain, {first} among them")


def _stamp(data: bytes) -> bytes:
    """Digits of the venue time of a frame's first row; empty where they are not where they always were."""
    at = data.find(b'"E":', 0, 3 * _KEY) + 4
    return data[at : at + 13] if at >= 4 and data[at : at + 13].isdigit() else b""


def greeks_of(row: wire.Greeks, universe: Universe) -> VenueGreeks:
    """A row's own vols and greeks, which are of one coin; sentinels are NaN."""
    option = universe[VENUE, row.s]
    venue_ns = wire.nanoseconds(row.E)
    years = max(float(years_between(venue_ns, option.expiry_ns)), 0.0)
    vols = [vol if LOWEST_VOL < vol < float("inf") else float("nan") for vol in (row.vo, row.b, row.a)]
    return VenueGreeks(
        venue_time_ns=venue_ns,
        forward=row.i * math.exp(row.rf * years) if abs(row.rf) < HIGHEST_CARRY else float("nan"),
        mark_vol=vols[0],
        bid_vol=vols[1],
        ask_vol=vols[2],
        delta=row.d,
        gamma=row.g,
        vega=row.v,
        theta=row.t,
    )


def _side(price: FloatArray, size: FloatArray, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
    # No quote is price 0 with quantity 0. A missing quantity alone hides no price.
    with np.errstate(over="ignore"):
        price, size = price / unit, size * unit
    absent = ~((price > 0) & (price < np.inf)) | (size <= 0)
    return np.where(absent, np.nan, price), np.where(absent | ~(size < np.inf), np.nan, size)


def _without_empty(batch: QuoteBatch) -> QuoteBatch:
    says = batch.fields > 0
    return batch if says.all() else _select(batch, says)


_FLOATS = (*VALUES, "venue_time_ns", "receive_time_ns", "sequence")


def _select(batch: QuoteBatch, chosen: BoolArray) -> QuoteBatch:
    columns: dict[str, Any] = {name: getattr(batch, name)[chosen] for name in _FLOATS}
    return QuoteBatch(batch.instrument_id[chosen], batch.fields[chosen], **columns)


def _concatenate(parts: list[QuoteBatch]) -> QuoteBatch:
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _FLOATS}
    ids = np.concatenate([part.instrument_id for part in parts])
    return QuoteBatch(ids, np.concatenate([part.fields for part in parts]), **columns)
