"""Best bids and asks as they change, decoded once a tick: of each option the last message only."""

from __future__ import annotations

import msgspec

from volsurf.feeds import _binance_messages as wire
from volsurf.feeds._binance_link import Link
from volsurf.feeds._pending import Pending
from volsurf.instruments import Instrument
from volsurf.quotes import QuoteBatch

NAN = float("nan")
HEAD = b'{"stream":"'
STREAM_AT = len(HEAD)
NUMBER = b'","data":{"e":"bookTicker","u":'
"""Between the stream's name and the update id. Key order is promised nowhere: others take the slower way."""
TICKER_HEAD = b"@bookTicker" + NUMBER

_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError)


class Quotes:
    """Last book ticker of every option since the last `take`.

    Attributes:
        unread: stream → message as bytes, its update id as bytes, and when it came. The hot path writes it directly.
        received: book tickers so far. pending: what goes into the next batch besides.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.received = 0
        self.unread: dict[bytes, tuple[bytes, bytes, int]] = {}
        self.pending = Pending(link.catalogue.universe)
        self._slow: dict[str, tuple[wire.BookTicker, int]] = {}

    def set_ticker(self, ticker: wire.BookTicker, now: int) -> None:
        """Last book ticker of an option, from a message in an unusual order of keys."""
        self.received += 1
        known = self._slow.get(ticker.s)
        if known is None or ticker.u >= known[0].u:
            self._slow[ticker.s] = ticker, now

    def set_last(self, row: int, price: float, venue_ns: int, now: int) -> None:
        """Price of the last trade of an option, per coin."""
        self.pending.last(row, price, venue_ns, now)

    def inherit(self, row: int, symbol: str, now: int) -> None:
        """Take up the quote that stands: on a second socket nothing is told of an option until it changes."""
        if (known := self._link.group.top(symbol)) is not None:
            top, (time_ms, update, _) = known
            self.pending.quote(row, *top, wire.nanoseconds(time_ms), now, update)

    def clear(self, rows: list[int], now: int) -> None:
        """Both sides of these options are gone."""
        self.settle()
        quoted, universe = self._link.group.quoted, self._link.catalogue.universe
        for row in rows:
            quoted.pop(universe[row].symbol, None)
        self.pending.clear(rows, now)

    def lost(self, symbols: set[str], now: int) -> None:
        """The connection is gone: of what it heard and nobody looked at nothing is live, nor the quotes that were its last."""
        self.unread.clear()
        self._slow.clear()
        rows = self._link.catalogue.rows
        self.pending.clear(sorted(rows[symbol] for symbol in symbols if symbol in rows), now)

    def take(self, now: int) -> QuoteBatch | None:
        """One row per option heard of since the last call, or None."""
        self.settle()
        return self.pending.take(now)

    def settle(self) -> None:
        """Decode what is unread."""
        unread, slow = self.unread, self._slow
        if unread:
            decode, watch = wire.decode_book_ticker_message, self._link.watch
            for data, _, heard in unread.values():
                try:
                    ticker = decode(data).data
                except _ERRORS as error:
                    watch.malformed(wire.malformed_cause(error), data)
                    continue
                self._quote(ticker, heard)
            unread.clear()
        if slow:
            for ticker, heard in slow.values():
                self._quote(ticker, heard)
            slow.clear()

    def _quote(self, ticker: wire.BookTicker, heard: int) -> None:
        link = self._link
        row = link.catalogue.rows.get(ticker.s)
        if row is None:
            link.counters["ticker_unknown"] += 1
            return
        time_ms = ticker.T or ticker.E
        if not link.group.is_newest(ticker.s, time_ms, ticker.u):
            link.counters["ticker_stale"] += 1
            return
        link.group.quoted[ticker.s] = time_ms, ticker.u, link.member
        option = link.catalogue.universe[row]
        venue_ns = wire.nanoseconds(time_ms)
        link.venue_ns = max(link.venue_ns, wire.nanoseconds(ticker.E))
        bid, bid_size = _side(ticker.b, ticker.B, option)
        ask, ask_size = _side(ticker.a, ticker.A, option)
        link.group.tops[ticker.s] = bid, bid_size, ask, ask_size
        self.pending.quote(row, bid, bid_size, ask, ask_size, venue_ns, heard, ticker.u)


def _side(price: float, quantity: float, option: Instrument) -> tuple[float, float]:
    # No quote is price 0 with quantity 0. A missing quantity alone hides no price.
    unit = option.contract_size
    price, size = price / unit, quantity * unit
    if not 0 < price < float("inf") or size <= 0:
        return NAN, NAN
    return price, size if size < float("inf") else NAN
