"""The last values one connection heard, turned into columns once a tick.

A ticker only replaces the one before it in a dict, as the bytes it came as: one that is overwritten before the tick is never
decoded. Every message in the dict is whole and has its keys in one order, so that the digits of its time can be compared where
they stand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from operator import attrgetter

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.feeds import _bybit_messages as wire
from volsurf.feeds._watch import Watch
from volsurf.feeds._wire import malformed_cause
from volsurf.feeds.protocol import VenueGreeks
from volsurf.instruments import FloatArray, Universe
from volsurf.quotes import VALUES, Field, QuoteBatch

_NUMBERS = wire.Ticker.__struct_fields__[1:]
_numbers = attrgetter(*_NUMBERS)
_STAMPS = ("venue_time_ns", "receive_time_ns", "sequence")
_LATE_MS = 60_000
"""A message older than the last by less was overtaken; by more, the venue's clock was set back."""


class LastValues:
    """Last ticker per instrument since the last `take`.

    Args:
        rows: symbol → id of the instruments followed now.

    Attributes:
        unread: topic → last ticker message. heard: topic → when a message last came, ns UTC. The hot path writes these two.
    """

    def __init__(self, universe: Universe, rows: dict[str, int], counters: Counter[str], watch: Watch) -> None:
        self._universe, self._rows, self._counters, self._watch = universe, rows, counters, watch
        self.unread: dict[bytes, bytes] = {}
        self.heard: dict[bytes, int] = {}
        self._index_row = np.full(1024, -1, np.int32)  # by id of an option: id of its index
        self._whole: dict[bytes, bytes] = {}
        self._time_ms: dict[int, float] = {}
        self._cleared: dict[int, int] = {}
        self._quoted = np.zeros(1024, np.bool_)  # by id: shows a price on some side

    def hold(self, symbol: str, message: wire.Message, now: int) -> None:
        """Take a ticker that came in another order of keys, came late, or is a change of the one before it."""
        topic = b"tickers." + symbol.encode()
        stamp, data = wire.stamp_of(message.ts), bytes(message.data)
        if not stamp or not data:
            self._watch.malformed("time" if data else "schema", topic)
            return
        before = self.unread.get(topic)
        if before is not None and is_late(stamp, _stamp(before)):
            self._counters["ticker_late"] += 1
            return
        if message.type == "delta":
            whole = before if before is not None else self._whole.get(topic)
            if whole is None:
                self._counters["ticker_awaiting_snapshot"] += 1
                return
            data = wire.merged(whole, data)
        self.unread[topic] = wire.usual_order(symbol, stamp, data)
        self.heard[topic] = now

    def tell_index(self, row: int, index_row: int) -> None:
        """An option's tickers tell this index."""
        if row >= len(self._index_row):
            self._index_row = np.concatenate((self._index_row, np.full(row + 1, -1, np.int32)))
        self._index_row[row] = index_row

    def greeks(self, symbol: str) -> VenueGreeks | None:
        """The venue's own vols and greeks of an instrument, as last taken; None where none has been."""
        data = self._whole.get(b"tickers." + symbol.encode())
        try:
            return None if data is None else wire.greeks_of(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None  # the prices of it were well-formed, the rest is not

    def clear(self, rows: Iterable[int], now: int) -> None:
        """These are followed no longer: both sides are gone."""
        for row in rows:
            topic = b"tickers." + self._universe[row].symbol.encode()
            for store in (self.unread, self.heard, self._whole):
                store.pop(topic, None)
            self._time_ms.pop(row, None)
            if row < len(self._quoted) and self._quoted[row]:
                self._cleared[row] = now

    def clear_all(self, now: int) -> None:
        """The connection is gone: no price of it is live, and none that was not taken yet will be."""
        self.unread.clear()
        self.heard.clear()
        self._whole.clear()
        self._time_ms.clear()
        self._cleared = dict.fromkeys(np.flatnonzero(self._quoted).tolist(), now)

    def take(self, now: int) -> QuoteBatch | None:
        """One row per instrument heard of since the last call, and one per index, or None."""
        tickers, times, received = self._decode()
        cleared, self._cleared = self._cleared, {}
        parts = []
        if tickers:
            parts += self._rows_of(tickers, np.array(times, np.float64), np.array(received, np.int64))
        cleared = {row: time_ns for row, time_ns in cleared.items() if row not in tickers}
        if cleared:
            self._quoted[list(cleared)] = False
            parts.append(QuoteBatch(list(cleared), Field.QUOTE, receive_time_ns=list(cleared.values())))
        if not parts:
            return None
        batch = parts[0] if len(parts) == 1 else _concatenate(parts)
        batch.time_ns = now
        return batch

    def _decode(self) -> tuple[dict[int, wire.Ticker], list[float], list[int]]:
        tickers: dict[int, wire.Ticker] = {}
        times: list[float] = []
        received: list[int] = []
        rows, known, heard, whole = self._rows, self._time_ms, self.heard, self._whole
        decode = wire.decode_ticker_message
        for topic, data in self.unread.items():
            try:
                message = decode(data)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                tolerated = self._tolerate(data)
                if tolerated is None:
                    continue
                message = tolerated
            ticker, time_ms = message.data, message.ts
            row = rows.get(ticker.symbol)
            if row is None or row in tickers:
                self._counters["ticker_unknown"] += 1
                heard.pop(topic, None)
                continue
            last = known.get(row)
            if last is not None and is_late(time_ms, last):
                self._counters["ticker_late"] += 1
                continue
            known[row] = time_ms
            tickers[row] = ticker
            times.append(time_ms)
            received.append(heard[topic])
            whole[topic] = data
        self.unread.clear()
        return tickers, times, received

    def _tolerate(self, data: bytes) -> wire.TickerMessage | None:
        try:
            message = wire.decode_tolerantly(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            self._watch.malformed(malformed_cause(error), data)
            return None
        self._counters["ticker_partly_unreadable"] += 1
        return message

    def _rows_of(
        self, tickers: dict[int, wire.Ticker], time_ms: FloatArray, received: npt.NDArray[np.int64]
    ) -> list[QuoteBatch]:
        rows = np.fromiter(tickers, np.int32, len(tickers))
        bid, bid_size, ask, ask_size, last, mark, mark_vol, forward, index = _table(tickers)
        bid, bid_size = _side(bid, bid_size)
        ask, ask_size = _side(ask, ask_size)
        if len(self._quoted) < len(self._universe):
            self._quoted = np.concatenate((self._quoted, np.zeros(len(self._universe), np.bool_)))
        self._quoted[rows] = ~(np.isnan(bid) & np.isnan(ask))
        fields = np.full(len(rows), Field.QUOTE, np.uint16)
        fields[mark >= 0] |= np.uint16(Field.MARK)
        for group, column in ((Field.LAST, last), (Field.FORWARD, forward), (Field.INDEX, index)):
            fields[column > 0] |= np.uint16(group)
        venue_ns = time_ms.astype(np.int64) * 1_000_000
        options = QuoteBatch(
            rows,
            fields,
            bid=bid,
            ask=ask,
            bid_size=bid_size,
            ask_size=ask_size,
            last=last,
            mark=mark,
            mark_vol=np.where(mark_vol > 0, mark_vol, np.nan),
            forward=forward,
            index=index,
            venue_time_ns=venue_ns,
            receive_time_ns=received,
        )
        newest = self._newest(rows, index, time_ms)
        if not newest:
            return [options]
        at = np.fromiter(newest.values(), np.intp, len(newest))
        indexes = QuoteBatch(
            list(newest), Field.INDEX, index=index[at], venue_time_ns=venue_ns[at], receive_time_ns=received[at]
        )
        return [options, indexes]

    def _newest(self, rows: npt.NDArray[np.int32], index: FloatArray, time_ms: FloatArray) -> dict[int, int]:
        """Of each index told of, its id and the position of the newest ticker that tells it.

        Of those of one millisecond it is the one with the highest price: which came first depends on what was read together.
        """
        of = self._index_row[rows]
        of = np.where(index > 0, of, -1)
        found: dict[int, int] = {}
        for row in np.unique(of[of >= 0]).tolist():
            places = np.flatnonzero(of == row)
            found[row] = int(places[np.lexsort((index[places], time_ms[places]))[-1]])
        return found


def is_late(stamp: float, last: float) -> bool:
    """A message was overtaken by the one before it; times in ms."""
    return stamp < last < stamp + _LATE_MS


def _stamp(data: bytes) -> int:
    start = data.index(b'"', wire.TICKER_TOPIC_AT) + wire.STAMP_AT
    digits = data[start : start + 13]
    return int(digits) if digits.isdigit() else 0


def _table(tickers: dict[int, wire.Ticker]) -> FloatArray:
    """The numbers of some tickers, shape (len(_NUMBERS), n); NaN where there is none."""
    numbers = map(_numbers, tickers.values())
    try:
        flat = np.fromiter(chain.from_iterable(numbers), np.float64, len(_NUMBERS) * len(tickers))
    except TypeError:  # an explicit null somewhere: rare, and half as fast
        flat = np.array([_numbers(ticker) for ticker in tickers.values()], np.float64).ravel()
    table = flat.reshape(-1, len(_NUMBERS)).T.copy()
    table[~np.isfinite(table)] = np.nan
    return table


def _side(price: FloatArray, size: FloatArray) -> tuple[FloatArray, FloatArray]:
    # "No quote" arrives as "0" for price and size. A missing size alone hides no price.
    absent = ~(price > 0) | (size <= 0)
    return np.where(absent, np.nan, price), np.where(absent, np.nan, size)


def _concatenate(parts: list[QuoteBatch]) -> QuoteBatch:
    columns: dict[str, npt.NDArray[np.generic]] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in (*VALUES, *_STAMPS)
    }
    ids = np.concatenate([part.instrument_id for part in parts])
    fields = np.concatenate([part.fields for part in parts])
    return QuoteBatch(ids, fields, feed=0, number=0, time_ns=0, **columns)
