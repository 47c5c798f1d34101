"""What one OKX connection heard since the last tick: quotes and summaries as bytes, decoded when they are wanted.

A quote replaces the one before it unread. Summaries are subsets of a family, so all of them are kept in order until the tick,
and the newest row of each option counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from math import nan

import msgspec

from volsurf.feeds import _okx_messages as wire
from volsurf.feeds._okx_greeks import coin_mark, positive
from volsurf.feeds._okx_messages import Level1, OptSummary, Ticker, nanoseconds, number
from volsurf.feeds._pending import Pending
from volsurf.feeds._wire import malformed_cause
from volsurf.instruments import Kind, Settlement, Universe
from volsurf.quotes import QuoteBatch

MOST_SUMMARIES = 64
"""Kept undecoded; a full one holds about 65 rows, 30 KB."""
_MOST = 1 << 63
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError, IndexError)


class Values:
    """Last values of one connection.

    Args:
        universe: of the connection. rows: symbol → id of what is followed now. channel: of the quotes. counters: of the
            connection. malformed: told of what does not decode.

    Attributes:
        quotes: symbol → last quote message and when it came. The hot path writes it directly.
        halted: ids whose prices are no quotes now.
        told: id → the last row of `opt-summary`. told_at: id → when it came, ns UTC.
    """

    def __init__(
        self,
        universe: Universe,
        rows: dict[str, int],
        channel: str,
        counters: Counter[str],
        malformed: Callable[[str, bytes], None],
    ) -> None:
        self._universe, self._rows, self._channel = universe, rows, channel
        self._counters, self._malformed = counters, malformed
        self.pending = Pending(universe)
        self.quotes: dict[bytes, tuple[bytes, int]] = {}
        self.halted: set[int] = set()
        self.told: dict[int, OptSummary] = {}
        self.told_at: dict[int, int] = {}
        self._summaries: list[tuple[bytes, int]] = []
        self._scales: dict[int, tuple[float, bool]] = {}

    def scale(self, row: int) -> tuple[float, bool]:
        """What one contract is: so much coin, or (True) so many dollars of it."""
        known = self._scales.get(row)
        if known is None:
            instrument = self._universe[row]
            in_dollars = instrument.kind is not Kind.OPTION and instrument.settlement is Settlement.INVERSE
            known = self._scales[row] = (instrument.contract_size, in_dollars)
        return known

    def rescale(self) -> None:
        """The instruments have changed: so may their contracts."""
        self._scales.clear()

    def add_summary(self, data: bytes, now: int) -> None:
        """Keep a message of `opt-summary`."""
        self._summaries.append((data, now))
        if len(self._summaries) >= MOST_SUMMARIES:
            self.settle_summaries()

    def settle(self) -> None:
        """Decode everything kept. To be called before anything that must not overtake it."""
        self.settle_summaries()
        if not self.quotes:
            return
        quotes, self.quotes = dict(self.quotes), self.quotes
        self.quotes.clear()
        decode = wire.decode_bbo_push if self._channel == wire.BBO else wire.decode_ticker_push
        take = self._take_level if self._channel == wire.BBO else self._take_ticker
        rows, unknown = self._rows, 0
        for symbol, (data, now) in quotes.items():
            try:
                row = rows.get(symbol.decode())
                if row is None:
                    unknown += 1
                    continue
                # More than one in a message has not been seen; the last is the newest.
                take(row, decode(data).data[-1], now)  # type: ignore[arg-type]
            except _UNREADABLE as error:
                self._malformed(_cause(error), data)
        if unknown:
            self._counters["quote_unknown"] += unknown

    def settle_summaries(self) -> None:
        """Decode the summaries kept; of each option the last row counts."""
        if not self._summaries:
            return
        newest: dict[str, tuple[OptSummary, int]] = {}
        for data, now in self._summaries:
            try:
                push = wire.decode_summary_push(data)
            except _UNREADABLE as error:
                self._malformed(_cause(error), data)
                continue
            for summary in push.data:
                newest[summary.instId] = summary, now
        self._summaries.clear()
        unknown = 0
        for name, (summary, now) in newest.items():
            row = self._rows.get(name)
            if row is None:
                unknown += 1
            else:
                self._take_summary(row, summary, now)
        if unknown:
            self._counters["summary_unknown"] += unknown  # another shard's, or not listed yet

    def clear(self, rows: Iterable[int], now: int) -> None:
        """Both sides of these instruments are gone."""
        self.pending.clear(rows, now)

    def forget(self, rows: Iterable[int]) -> None:
        """These are not followed any more."""
        for row in rows:
            self.told.pop(row, None)
            self.told_at.pop(row, None)
            self.halted.discard(row)

    def clear_all(self, now: int) -> None:
        """The connection is gone: no price of it is live, and none that was not taken yet will be."""
        self.quotes.clear()
        self._summaries.clear()
        self.halted.clear()
        self.told_at.clear()
        self.pending.clear_all(now)

    def take(self, now: int) -> QuoteBatch | None:
        """One row per instrument heard of since the last call, or None."""
        self.settle()
        return self.pending.take(now)

    def _take_level(self, row: int, level: Level1, now: int) -> None:
        # A level of fewer than two numbers is an IndexError, and the message malformed.
        bid, bid_contracts = (level.bids[0][0], level.bids[0][1]) if level.bids else (nan, nan)
        ask, ask_contracts = (level.asks[0][0], level.asks[0][1]) if level.asks else (nan, nan)
        sequence = level.seqId if 0 < level.seqId < _MOST else 0
        self._quote(row, bid, bid_contracts, ask, ask_contracts, nanoseconds(level.ts), now, sequence)

    def _take_ticker(self, row: int, ticker: Ticker, now: int) -> None:
        venue_ns = nanoseconds(ticker.ts)
        bid, ask = number(ticker.bidPx), number(ticker.askPx)
        self._quote(row, bid, number(ticker.bidSz), ask, number(ticker.askSz), venue_ns, now, 0)
        last = number(ticker.last)
        if last > 0:
            self.pending.last(row, last, venue_ns, now)

    def _quote(
        self,
        row: int,
        bid: float,
        bid_contracts: float,
        ask: float,
        ask_contracts: float,
        venue_ns: int,
        now: int,
        sequence: int,
    ) -> None:
        unit, in_dollars = self.scale(row)
        shut = row in self.halted
        # No price, no quote; a missing size alone hides no price, a size of 0 does.
        if shut or not 0 < bid < _MOST or bid_contracts <= 0:
            bid = nan
        if shut or not 0 < ask < _MOST or ask_contracts <= 0:
            ask = nan
        bid_size, ask_size = bid_contracts * unit, ask_contracts * unit
        if in_dollars:
            bid_size, ask_size = bid_size / bid, ask_size / ask
        self.pending.quote(row, bid, _finite(bid_size), ask, _finite(ask_size), venue_ns, now, sequence)

    def _take_summary(self, row: int, summary: OptSummary, now: int) -> None:
        venue_ns = nanoseconds(summary.ts)
        self.told[row], self.told_at[row] = summary, now
        vol, forward = positive(summary.markVol), positive(summary.fwdPx)
        inverse = self._universe[row].settlement is Settlement.INVERSE
        # Of a linear option the leverage's numerator is not known (spot or forward, dollars or coin), so it gives no mark.
        mark = coin_mark(summary.lever) if inverse else nan
        if vol == vol or mark == mark:
            self.pending.mark(row, mark, vol, venue_ns, now)
        if forward == forward:
            self.pending.forward(row, forward, venue_ns, now)


def _finite(size: float) -> float:
    return size if size < _MOST else nan


def _cause(error: Exception) -> str:
    return "schema" if isinstance(error, IndexError) else malformed_cause(error)
