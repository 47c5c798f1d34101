"""The messages Bybit pushes and the rows of its REST pages. Keys, their order, types and roundings are those of captured ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.instruments import FloatArray
from volsurf.sim._bybit_listing import DIGITS, BybitListing, text
from volsurf.sim.quoting import QuoteModel, Trade

STAMP_KEY = b'"ts":'
SIZE_DIGIT = re.compile(rb'"(?:bid|ask)Size":"([1-9])')
"""The first digit of a size: what a burst varies besides the time."""

_DAYS = 365.0
_REST_NAMES = {
    "bidPrice": "bid1Price",
    "bidSize": "bid1Size",
    "bidIv": "bid1Iv",
    "askPrice": "ask1Price",
    "askSize": "ask1Size",
    "askIv": "ask1Iv",
    "markPriceIv": "markIv",
}
"""REST says the same under other names."""
_DELIVERY_WINDOW_NS = 1_800_000_000_000


def push(topic: str, time_ms: int, kind: str, number: int, data: object, **more: object) -> bytes:
    """One pushed message."""
    head = {"topic": topic, "ts": time_ms, "type": kind, "id": f"{topic}-{number}-{time_ms}", "data": data}
    return msgspec.json.encode(head | more)


class Renderer:
    """Turns rows of the quote model into Bybit's objects."""

    def __init__(self, listing: BybitListing, quotes: QuoteModel) -> None:
        self._listing = listing
        self._quotes = quotes

    def tickers(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> list[dict[str, str]]:
        """`data` of each row's `tickers` topic: everything is a string, and "0" is what is not there."""
        index = np.asarray(rows, np.intp)
        if not len(index):
            return []
        q = self._quotes
        forward, vol, v = q.forward[index], q.vol[index], q.v[index]
        years = (v / vol) ** 2
        bid_vol, ask_vol = q.side_vols(index)
        bid, ask = q.bid[index], q.ask[index]
        day = np.minimum(1.0 / _DAYS, years)
        # Greeks are for one coin in the strike's currency: vega per vol point, theta per day and not beyond the last.
        gamma = q.vega[index] / (forward * v)
        vega = forward * q.vega[index] * np.sqrt(years) * 0.01
        theta = -0.5 * forward * q.vega[index] * vol / np.sqrt(years) * day
        last, low = q.last[index], q.low[index]
        moved = np.where(low > 0, last / np.where(low > 0, low, 1.0) - 1.0, 0.0)
        volume = q.volume[index]
        columns = (
            index.tolist(),
            _texts(bid),
            _texts(np.where(np.isnan(bid), np.nan, q.bid_size[index])),
            _texts(np.where(np.isnan(bid), np.nan, bid_vol), 4),
            _texts(ask),
            _texts(np.where(np.isnan(ask), np.nan, q.ask_size[index])),
            _texts(np.where(np.isnan(ask), np.nan, ask_vol), 4),
            _texts(last),
            _texts(q.high[index]),
            _texts(low),
            _texts(q.mark[index]),
            _texts(vol, 4),
            _texts(forward),
            _texts(q.open_interest[index], 2),
            _texts(volume * np.nan_to_num(forward), 2),
            _texts(volume, 2),
            _texts(q.delta[index]),
            _texts(gamma),
            _texts(vega),
            _texts(theta),
            _texts(moved),
        )
        names, families, universe = self._listing.names, self._listing.family, self._listing.universe
        spots = {family: self._listing.spot(family) for family in self._listing.families}
        now_ns = self._quotes.market.now_ns
        out = []
        # Thousands of these a second: the columns are unpacked side by side rather than looked up by name and row.
        for (row, bid_, bid_size, bid_iv, ask_, ask_size, ask_iv, last_, high, low_, mark, mark_iv, forward_, interest,
             turnover, volume_, delta_, gamma_, vega_, theta_, moved_) in zip(*columns, strict=True):  # fmt: skip
            spot = text(spots[families[row]], DIGITS[families[row].underlying])
            near = universe.expiry_ns[row] - now_ns < _DELIVERY_WINDOW_NS
            out.append(
                {
                    "symbol": names[row],
                    "bidPrice": bid_,
                    "bidSize": bid_size,
                    "bidIv": bid_iv,
                    "askPrice": ask_,
                    "askSize": ask_size,
                    "askIv": ask_iv,
                    "lastPrice": last_,
                    "highPrice24h": high,
                    "lowPrice24h": low_,
                    "markPrice": mark,
                    "indexPrice": spot,
                    "markPriceIv": mark_iv,
                    "underlyingPrice": forward_,
                    "openInterest": interest,
                    "turnover24h": turnover,
                    "volume24h": volume_,
                    "totalVolume": volume_,
                    "totalTurnover": turnover,
                    "delta": delta_,
                    "gamma": gamma_,
                    "vega": vega_,
                    "theta": theta_,
                    "predictedDeliveryPrice": spot if near else "0",
                    "change24h": moved_,
                }
            )
        return out

    def rest_tickers(self, rows: Sequence[int]) -> list[dict[str, str]]:
        """Rows of `/v5/market/tickers`."""
        return [{_REST_NAMES.get(k, k): v for k, v in ticker.items()} for ticker in self.tickers(rows)]

    def trades(self, trades: Iterable[Trade]) -> list[dict[str, Any]]:
        """The rows of a `publicTrade` message."""
        out = []
        for trade in trades:
            row, q = trade.row, self._quotes
            vols = q.side_vols(np.array([row]))
            vol = float(vols[1][0] if trade.is_buy else vols[0][0])
            out.append(
                {
                    "p": text(trade.price),
                    "v": text(trade.amount),
                    "i": f"{trade.number:08x}-8419-5bac-95c3-{row:012x}",
                    "T": trade.time_ns // 1_000_000,
                    "BT": False,
                    "s": self._listing.names[row],
                    "S": "Buy" if trade.is_buy else "Sell",
                    "mP": text(float(q.mark[row])),
                    "iP": text(self._listing.spot(self._listing.family[row])),
                    "mIv": text(float(q.vol[row]), 4),
                    "iv": text(vol, 4) if vol == vol else "0",
                }
            )
        return out


def levels(side: Iterable[tuple[float, float]]) -> list[tuple[str, str]]:
    """Levels of a book as strings."""
    return [(text(price), text(size)) for price, size in side]


def _texts(column: FloatArray, digits: int = 8) -> list[str]:
    return [text(value, digits) if value == value else "0" for value in column.tolist()]
