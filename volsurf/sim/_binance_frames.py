"""The messages Binance pushes, encoded. Keys, their order, types and decimals are those of captured frames."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.json import encode
from scipy.special import ndtr

from volsurf.instruments import FloatArray, years_between
from volsurf.sim._binance_listing import DECIMALS, DECIMALS_ELSE, INDEX_DECIMALS, SIZE_DECIMALS, BinanceListing
from volsurf.sim._binance_quotes import BinanceQuotes
from volsurf.sim.burst import BurstBuffer, Stampable
from volsurf.sim.depth import Ladder
from volsurf.sim.exchange import BURST_BYTES
from volsurf.sim.quoting import Trade

STAMP_KEY = b'"T":'
SIZE_DIGIT = re.compile(rb'"[BA]":"([1-9])')
"""The first digit of a size: what a burst varies besides the times."""
NO_VOL, BELOW_INTRINSIC = "-1.0", "0.00000060"
_DAYS = 365.0
_SECOND_STAMP = 13 + len(b',"E":')


def wrapped(name: str, payload: bytes) -> bytes:
    """A payload as it comes on a combined stream."""
    return b'{"stream":"%b","data":%b}' % (name.encode(), payload)


class Renderer:
    """Turns rows of the quote model into Binance's objects. Prices are per contract, sizes in contracts."""

    def __init__(self, listing: BinanceListing, quotes: BinanceQuotes) -> None:
        self._listing, self._quotes = listing, quotes

    def decimals(self, row: int) -> int:
        """Of a price of this row."""
        return DECIMALS.get(self._listing.family[row].underlying, DECIMALS_ELSE)

    def marks(self, pair: str, rows: npt.NDArray[np.integer], time_ms: int) -> bytes:
        """The array of `<pair>@optionMarkPrice`: the whole chain. Greeks are of one coin."""
        q, universe, family = self._quotes, self._quotes.universe, self._listing.pairs[pair]
        digits = DECIMALS.get(family.underlying, DECIMALS_ELSE)
        unit, spot = family.contract_size, self._listing.spot(family)
        years = np.maximum(years_between(time_ms * 1_000_000, universe.expiry_ns[rows]), 1e-9)
        forward, vol, v, k, is_call = q.forward[rows], q.vol[rows], q.v[rows], q.k[rows], universe.is_call[rows]
        discount = spot / forward
        d1 = -k / v + 0.5 * v
        vega = q.vega[rows] * forward * np.sqrt(years) * discount * 0.01
        gamma = q.vega[rows] / (forward * v)
        theta = -0.5 * discount * forward * q.vega[rows] * vol / np.sqrt(years) / _DAYS
        bid_vol, ask_vol = q.side_vols(rows)
        mark = q.mark[rows] * unit
        columns = (
            [self._listing.names[row] for row in rows.tolist()],
            _texts(mark, digits),
            _texts(q.bid[rows] * unit, digits),
            _texts(q.ask[rows] * unit, digits),
            _texts(np.where(np.isnan(q.bid[rows]), 0.0, q.bid_size[rows]) / unit, SIZE_DECIMALS),
            _texts(np.where(np.isnan(q.ask[rows]), 0.0, q.ask_size[rows]) / unit, SIZE_DECIMALS),
            _vols(bid_vol, q.bid[rows]),
            _vols(ask_vol, q.ask[rows]),
            _texts(mark * 1.8, digits),
            _texts(mark * 0.2, digits),
            _texts(vol, 8),
            _texts(np.log(forward / spot) / years, 4),
            _texts(np.where(is_call, ndtr(d1), -ndtr(-d1)), 8),
            _texts(theta, 8),
            _texts(gamma, 8),
            _texts(vega, 8),
        )
        index, settle = f"{spot:.{INDEX_DECIMALS}f}", f"{0.0:.{digits}f}"
        head = f'"E":{time_ms},"e":"markPrice","i":"{index}","P":"{settle}"'
        # 250 KB a second and underlying: written as text, which takes a third of what encoding objects does.
        written = [
            f'{{"s":"{s}","mp":"{mp}",{head},"bo":"{bo}","ao":"{ao}","bq":"{bq}","aq":"{aq}","b":"{b}","a":"{a}",'
            f'"hl":"{hl}","ll":"{ll}","vo":"{vo}","rf":"{rf}","d":"{d}","t":"{t}","g":"{g}","v":"{vega_}"}}'
            for s, mp, bo, ao, bq, aq, b, a, hl, ll, vo, rf, d, t, g, vega_ in zip(*columns, strict=True)
        ]
        return f"[{','.join(written)}]".encode()

    def book_ticker(self, row: int, update: int, time_ms: int) -> bytes:
        """The object of `<symbol>@bookTicker`."""
        q, digits = self._quotes, self.decimals(row)
        unit = float(q.universe.contract_size[row])
        bid, ask = float(q.bid[row]), float(q.ask[row])
        b, size_b = (bid * unit, float(q.bid_size[row]) / unit) if bid == bid else (0.0, 0.0)
        a, size_a = (ask * unit, float(q.ask_size[row]) / unit) if ask == ask else (0.0, 0.0)
        text = (
            f'{{"e":"bookTicker","u":{update},"s":"{self._listing.names[row]}","b":"{b:.{digits}f}","B":"{size_b:.2f}",'
            f'"a":"{a:.{digits}f}","A":"{size_a:.2f}","T":{time_ms},"E":{time_ms}}}'
        )
        return text.encode()

    def depth(self, row: int, book: Ladder, previous: int, first: int, sides: tuple[Any, Any], time_ms: int) -> bytes:
        """The object of `<symbol>@depth…`: levels of both sides as `(price, size)`, per coin and in coins."""
        return encode(
            {
                "e": "depthUpdate",
                "E": time_ms,
                "T": time_ms,
                "s": self._listing.names[row],
                "U": first,
                "u": book.change_id,
                "pu": previous,
                "b": self.levels(row, sides[0]),
                "a": self.levels(row, sides[1]),
            }
        )

    def levels(self, row: int, levels: Iterable[tuple[float, float]]) -> list[list[str]]:
        """Levels per contract, as strings."""
        digits, unit = self.decimals(row), float(self._quotes.universe.contract_size[row])
        return [[f"{price * unit:.{digits}f}", f"{size / unit:.2f}"] for price, size in levels]

    def trade(self, trade: Trade, time_ms: int) -> bytes:
        """The object of `@optionTrade`."""
        unit = float(self._quotes.universe.contract_size[trade.row])
        return encode(
            {
                "e": "trade",
                "E": time_ms,
                "T": trade.time_ns // 1_000_000,
                "s": self._listing.names[trade.row],
                "t": trade.instrument_number,
                "p": f"{trade.price * unit:.{self.decimals(trade.row)}f}",
                "q": f"{trade.amount / unit:.2f}",
                "X": "MARKET",
                "S": "BUY" if trade.is_buy else "SELL",
                "m": not trade.is_buy,
            }
        )

    def statistics(self, row: int, time_ms: int) -> bytes:
        """The object of `@optionTicker`: 24 hours, and no quote."""
        q, digits = self._quotes, self.decimals(row)
        unit = float(q.universe.contract_size[row])
        last, low = (0.0 if x != x else float(x) * unit for x in (q.last[row], q.low[row]))
        change = last - low
        return encode(
            {
                "e": "24hrTicker",
                "E": time_ms,
                "s": self._listing.names[row],
                "p": f"{change:.{digits}f}",
                "P": f"{change / low if low else 0.0:.3f}",
                "c": f"{last:.{digits}f}",
                "o": f"{low:.{digits}f}",
                "v": f"{float(q.volume[row]) / unit:.2f}",
                "n": int(q.trade_numbers[row]),
            }
        )


class BookTickerBurst(BurstBuffer):
    """Book tickers of one client, sent round and round: both of their times are live."""

    def load(self, messages: list[Stampable]) -> None:  # type: ignore[override]
        """Take a new set of frames."""
        super().load(messages)
        self._event_stamps = self._stamps + _SECOND_STAMP

    def take(self, messages: int, time_ms: int) -> tuple[bytes, int]:
        """The next frames, stamped."""
        if len(self) and messages > 0:
            last = min(len(self), self._next + min(messages, max(1, BURST_BYTES // self.mean_bytes)))
            self._bytes[self._event_stamps[self._next : last]] = np.frombuffer(b"%013d" % time_ms, np.uint8)
        return super().take(messages, time_ms)


def _texts(column: FloatArray, digits: int) -> list[str]:
    # NaN is no side, which is written as 0; adding zero turns the -0.0 of a rounded small negative into 0.0.
    values = np.round(np.nan_to_num(column), digits) + 0.0
    return [f"{value:.{digits}f}" for value in values.tolist()]


def _vols(vols: FloatArray, prices: FloatArray) -> list[str]:
    quoted = ~np.isnan(prices)
    return [
        NO_VOL if not there else BELOW_INTRINSIC if vol != vol else f"{vol:.8f}"
        for vol, there in zip(vols.tolist(), quoted.tolist(), strict=True)
    ]
