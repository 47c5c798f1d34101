"""The last values one connection heard, turned into columns once a tick.

A ticker only replaces the one before it in a dict, as the bytes it came as: one that is overwritten before anybody looks is
never decoded. So reading costs a fraction of what decoding does, a flood cannot hold up the heartbeats behind it, and what
reaches numpy is one row per instrument however many came.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from math import nan
from operator import attrgetter

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.feeds._deribit_messages import (
    Greeks,
    IndexPrice,
    MarkPrice,
    Ticker,
    decode_reference_notification,
    decode_ticker_notification,
)
from volsurf.feeds._pending import Pending
from volsurf.feeds._wire import LATEST_MS, nanoseconds
from volsurf.feeds.protocol import VenueGreeks
from volsurf.instruments import FloatArray, Kind, Settlement, Universe
from volsurf.quotes import Field, QuoteBatch

_NUMBERS = (
    "timestamp",
    "best_bid_price",
    "best_bid_amount",
    "best_ask_price",
    "best_ask_amount",
    "mark_price",
    "mark_iv",
    "underlying_price",
    "index_price",
)
_numbers = attrgetter(*_NUMBERS)


class LastValues:
    """Last ticker, mark and index price per instrument id since the last `take`.

    Args:
        rows: name → id of the instruments followed now. counters: of the connection.

    Attributes:
        unread: channel → last ticker message as bytes. heard: channel → when it came. The hot path writes these two directly.
        undecoded: ticker messages that turned out to be none the fast decoder knows, and when they came.
        told: channel → last ticker message that was looked at.
        tickers: id → last ticker. received: id → when it came, ns UTC.
        halted: ids whose venue state or whose index's lock makes every price they show not a quote.
    """

    def __init__(self, universe: Universe, rows: dict[str, int], counters: Counter[str]) -> None:
        self._universe, self._rows, self._counters = universe, rows, counters
        self.unread: dict[bytes, bytes] = {}
        self.heard: dict[bytes, int] = {}
        self.undecoded: list[tuple[bytes, int]] = []
        self.tickers: dict[int, Ticker] = {}
        self.received: dict[int, int] = {}
        self.halted: set[int] = set()
        self._indexes: dict[int, tuple[IndexPrice, int]] = {}
        self._marks: dict[int, tuple[MarkPrice, int]] = {}
        self._mark_time: dict[int, float] = {}
        self.told: dict[bytes, bytes] = {}
        self._pending = Pending(universe)

    def settle(self) -> None:
        """Decode what is unread. To be called before anything that must not overtake a ticker."""
        if not self.unread:
            return
        for channel, data in self.unread.items():
            try:
                ticker = decode_ticker_notification(data).params.data
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                # The slower way finds out what is wrong with it.
                self.undecoded.append((data, self.heard[channel]))
                continue
            row = self._rows.get(ticker.instrument_name)
            if row is None:
                self._counters["ticker_unknown"] += 1
            else:
                self.set_ticker(row, ticker, self.heard[channel])
        self.told.update(self.unread)
        self.unread.clear()
        self.heard.clear()

    def set_ticker(self, row: int, ticker: Ticker, now: int) -> None:
        """Last ticker of an instrument."""
        self.tickers[row] = ticker
        self.received[row] = now

    def greeks(self, channel: bytes) -> VenueGreeks | None:
        """The venue's own numbers in the last ticker of an option."""
        data = self.told.get(channel)
        if data is None:
            return None
        try:
            said = decode_reference_notification(data).params.data
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None  # the prices of it were well-formed, these are not
        greeks = said.greeks or Greeks()
        vols = {name: _vol(getattr(said, name.replace("vol", "iv"))) for name in ("mark_vol", "bid_vol", "ask_vol")}
        return VenueGreeks(
            venue_time_ns=nanoseconds(said.timestamp),
            forward=_number(said.underlying_price),
            **vols,
            **{name: _number(getattr(greeks, name)) for name in ("delta", "gamma", "vega", "theta", "rho")},
        )

    def set_index(self, row: int, price: IndexPrice, now: int) -> None:
        """Last price of an index."""
        self._indexes[row] = (price, now)

    def set_mark(self, row: int, mark: MarkPrice, now: int) -> None:
        """Mark of one option from the channel of the whole chain, unless a newer one is here: channels overtake each other."""
        if mark.mark_price is None or mark.mark_price < 0:
            return
        ticker = self.tickers.get(row)
        newest = max(self._mark_time.get(row, 0.0), ticker.timestamp if ticker is not None else 0.0)
        if mark.timestamp >= newest:
            self._marks[row] = (mark, now)

    def clear(self, rows: list[int] | set[int], now: int) -> None:
        """Both sides of these instruments are gone."""
        self.settle()
        for row in rows:
            self.tickers.pop(row, None)
            self.received.pop(row, None)
        self._pending.clear(rows, now)

    def clear_all(self, now: int) -> None:
        """The connection is gone: no price of it is live, and none that was not taken yet will be."""
        for unread in (self.unread, self.heard, self.undecoded, self.tickers, self.received):
            unread.clear()
        self._indexes.clear()
        self._marks.clear()
        self._mark_time.clear()
        self.halted.clear()
        self._pending.clear_all(now)

    def take(self, now: int) -> QuoteBatch | None:
        """What was heard since the last call, or None: one row per instrument, and one more where a mark came by itself."""
        self.settle()
        pending = self._pending
        tickers, self.tickers = self.tickers, {}
        marks, self._marks = self._marks, {}
        indexes, self._indexes = self._indexes, {}
        for row, (price, heard) in indexes.items():
            pending.index(row, price.price, nanoseconds(price.timestamp), heard)
        if tickers:
            pending.add(self._ticker_rows(tickers))
        # A ticker that overtook the mark has the newer one.
        marks = {r: m for r, m in marks.items() if r not in tickers or m[0].timestamp >= tickers[r].timestamp}
        if marks:
            pending.add(self._mark_rows(marks))
        return pending.take(now)

    def _ticker_rows(self, tickers: dict[int, Ticker]) -> QuoteBatch:
        rows = np.fromiter(tickers, np.int32, len(tickers))
        time_ms, bid, bid_size, ask, ask_size, mark, mark_iv, forward, index = _table(tickers)
        last = np.array([ticker.last_price for ticker in tickers.values()], np.float64)
        kind = self._universe.kind[rows]
        is_option = kind == Kind.OPTION
        # Not open: the prices shown are those of the moment it closed or was halted.
        shut = np.array([ticker.state != "open" for ticker in tickers.values()])
        if self.halted:
            shut |= np.isin(rows, np.fromiter(self.halted, np.int32, len(self.halted)))
        # The amounts of inverse futures are dollars, those of options and linear contracts units of the underlying.
        in_dollars = ~is_option & (self._universe.settlement[rows] == Settlement.INVERSE)
        bid, bid_size = _side(bid, bid_size, shut, in_dollars)
        ask, ask_size = _side(ask, ask_size, shut, in_dollars)
        fields = np.full(len(rows), Field.QUOTE, np.uint16)
        fields[mark >= 0] |= np.uint16(Field.MARK)
        fields[last > 0] |= np.uint16(Field.LAST)
        fields[is_option & (forward > 0)] |= np.uint16(Field.FORWARD)
        fields[index > 0] |= np.uint16(Field.INDEX)
        if self._mark_time:
            self._mark_time.update(zip(rows.tolist(), time_ms.tolist(), strict=True))
        received = self.received
        return QuoteBatch(
            rows,
            fields,
            bid=bid,
            ask=ask,
            bid_size=bid_size,
            ask_size=ask_size,
            last=last,
            mark=mark,
            mark_vol=np.where(is_option & (mark_iv > 0), mark_iv / 100.0, np.nan),
            forward=np.where(is_option, forward, np.nan),
            index=index,
            venue_time_ns=_nanoseconds(time_ms),
            receive_time_ns=[received[row] for row in tickers],
        )

    def _mark_rows(self, marks: dict[int, tuple[MarkPrice, int]]) -> QuoteBatch:
        values = np.array([(m.timestamp, m.mark_price, m.iv) for m, _ in marks.values()], np.float64).T
        time_ms, mark, vol = values
        self._mark_time.update(zip(marks, time_ms.tolist(), strict=True))
        return QuoteBatch(
            list(marks),
            Field.MARK,
            mark=mark,
            mark_vol=np.where(vol > 0, vol, np.nan),
            venue_time_ns=_nanoseconds(time_ms),
            receive_time_ns=[now for _, now in marks.values()],
        )


def _number(value: float | None) -> float:
    return nan if value is None else value


def _vol(percent: float | None) -> float:
    return percent / 100.0 if percent is not None and percent > 0 else nan


def _table(tickers: dict[int, Ticker]) -> FloatArray:
    """The numbers of some tickers, shape (len(_NUMBERS), n); NaN where there is none."""
    numbers = map(_numbers, tickers.values())
    try:
        flat = np.fromiter(chain.from_iterable(numbers), np.float64, len(_NUMBERS) * len(tickers))
    except TypeError:  # an explicit null somewhere: rare, and half as fast
        return np.array([_numbers(ticker) for ticker in tickers.values()], np.float64).T
    return flat.reshape(-1, len(_NUMBERS)).T


def _side(
    price: FloatArray, size: FloatArray, shut: npt.NDArray[np.bool_], in_dollars: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    # "No quote" arrives as price 0.0 with amount 0.0, as null, or as a missing key. A missing amount alone hides no price.
    absent = shut | ~(price > 0) | (size <= 0)
    with np.errstate(over="ignore"):
        size = np.where(in_dollars, size / np.where(absent, np.nan, price), size)
    return np.where(absent, np.nan, price), np.where(absent | np.isinf(size), np.nan, size)


def _nanoseconds(milliseconds: FloatArray) -> npt.NDArray[np.int64]:
    possible = (milliseconds > 0) & (milliseconds < LATEST_MS)
    # Through integers: a double holds the milliseconds exactly and the nanoseconds not.
    return np.where(possible, milliseconds, 0.0).astype(np.int64) * 1_000_000
