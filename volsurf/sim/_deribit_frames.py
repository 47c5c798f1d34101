"""The messages Deribit pushes, encoded. Keys, types and roundings are those of captured frames; key order is not fixed there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from volsurf.instruments import BoolArray, FloatArray, Kind, Settlement
from volsurf.sim._deribit_listing import TERMS, DeribitListing
from volsurf.sim.quoting import QuoteModel, Trade

STAMP_KEY = b'"timestamp":'
SIZE_DIGIT = re.compile(rb'"best_(?:bid|ask)_amount":([1-9])')
"""The first digit of a size: what a burst varies besides the time."""

_MARK_DIGITS = 4
"""Deribit has sent marks with four decimals since July 2026: nobody can back a volatility out of them."""
_DAYS = 365.0


def notification(channel: str, data: object) -> bytes:
    """One pushed message."""
    return msgspec.json.encode(
        {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}}
    )


class Renderer:
    """Turns rows of the quote model into Deribit's objects."""

    def __init__(self, listing: DeribitListing, quotes: QuoteModel) -> None:
        self._listing = listing
        self._quotes = quotes

    def tickers(self, rows: Sequence[int] | npt.NDArray[np.integer], time_ms: int) -> list[dict[str, Any]]:
        """The `ticker` object of each row."""
        index = np.asarray(rows, np.intp)
        kind = self._quotes.universe.kind[index]
        out: list[dict[str, Any]] = [{} for _ in range(len(index))]
        for mask, render in ((kind == Kind.OPTION, self._options), (kind != Kind.OPTION, self._futures)):
            if mask.any():
                for position, ticker in zip(np.flatnonzero(mask).tolist(), render(index[mask], time_ms), strict=True):
                    out[position] = ticker
        return out

    def quote(self, row: int, time_ms: int) -> dict[str, Any]:
        """The object of `quote.{instrument}`: null for a side that is not there."""
        q = self._quotes
        bid, ask = float(q.bid[row]), float(q.ask[row])
        return {
            "timestamp": time_ms,
            "instrument_name": self._listing.names[row],
            "best_bid_price": None if bid != bid else bid,
            "best_bid_amount": 0.0 if bid != bid else float(q.bid_size[row]),
            "best_ask_price": None if ask != ask else ask,
            "best_ask_amount": 0.0 if ask != ask else float(q.ask_size[row]),
        }

    def marks(self, rows: npt.NDArray[np.integer], time_ms: int) -> list[dict[str, Any]]:
        """The entries of `markprice.options`: the vol is a fraction here."""
        marks, vols = self.mark_columns(rows)
        names = self._listing.names
        return [
            {"timestamp": time_ms, "iv": vol, "instrument_name": names[row], "mark_price": mark}
            for row, mark, vol in zip(rows.tolist(), marks.tolist(), vols.tolist(), strict=True)
        ]

    def mark_columns(self, rows: npt.NDArray[np.integer]) -> tuple[FloatArray, FloatArray]:
        """Published mark prices and vols (fractions) of options."""
        q = self._quotes
        return np.round(q.mark[rows], _MARK_DIGITS), np.round(q.vol[rows], 4)

    def trades(self, trades: Iterable[Trade]) -> list[dict[str, Any]]:
        """The entries of a `trades` channel."""
        out = []
        for trade in trades:
            row, q, terms = trade.row, self._quotes, self._listing.terms(trade.row)
            option = self._quotes.universe.kind[row] == Kind.OPTION
            entry = {
                "timestamp": trade.time_ns // 1_000_000,
                "price": trade.price,
                "amount": trade.amount,
                "direction": "buy" if trade.is_buy else "sell",
                "index_price": self._index(self._listing.underlyings[row]),
                "instrument_name": self._listing.names[row],
                "trade_seq": trade.instrument_number,
                "mark_price": round(float(q.mark[row]), _MARK_DIGITS if option else terms.digits),
                "tick_direction": 0 if trade.is_buy else 2,
                "contracts": round(trade.amount / float(q.universe.contract_size[row]), 4),
                "trade_id": str(244_000_000 + trade.number),
            }
            if option:
                bid, ask = self._quotes.side_vols(np.array([row]))
                vol = float(ask[0] if trade.is_buy else bid[0])
                entry["iv"] = round(100.0 * vol, 2) if vol == vol else 0.0
            out.append(entry)
        return out

    def expired(self, row: int, time_ms: int, delivery_price: float) -> dict[str, Any]:
        """The last ticker of an option: nothing quoted, and what it was settled at."""
        ticker = self.tickers([row], time_ms)[0]
        for key in ("best_bid_price", "best_bid_amount", "best_ask_price", "best_ask_amount", "bid_iv", "ask_iv"):
            if key in ticker:
                ticker[key] = 0.0
        return ticker | {"state": "closed", "estimated_delivery_price": "expired", "delivery_price": delivery_price}

    def _index(self, underlying: str) -> float:
        return self._listing.spot(underlying)

    def _options(self, rows: npt.NDArray[np.intp], time_ms: int) -> list[dict[str, Any]]:
        q, universe = self._quotes, self._quotes.universe
        forward, vol, v, k = q.forward[rows], q.vol[rows], q.v[rows], q.k[rows]
        is_call, strike = universe.is_call[rows], universe.strike[rows]
        linear = universe.settlement[rows] == Settlement.LINEAR
        years = (v / vol) ** 2
        d2 = -k / v - 0.5 * v
        bid_vol, ask_vol = q.side_vols(rows)
        day = np.minimum(1.0 / _DAYS, years)
        # The venue's greeks are in the strike's currency: vega per vol point, theta per day and not beyond the last.
        gamma = q.vega[rows] / (forward * v)
        vega = forward * q.vega[rows] * np.sqrt(years) * 0.01
        theta = -0.5 * forward * q.vega[rows] * vol / np.sqrt(years) * day
        rho = np.where(is_call, ndtr(d2), -ndtr(-d2)) * strike * years * 0.01
        bid, ask = q.bid[rows], q.ask[rows]
        no_bid, no_ask = np.isnan(bid), np.isnan(ask)
        tick = universe.tick_size[rows]
        band = np.where(linear, 0.06 * forward, 0.03)
        step = np.where(linear, tick, 0.0005)
        lowest = np.maximum(tick, np.round(np.floor((q.mark[rows] - band) / step) * step, 10))
        highest = np.round(np.ceil((q.mark[rows] + band) / step) * step, 10)
        greeks = zip(*(_rounded(x, 5) for x in (q.delta[rows], gamma, vega, theta, rho)), strict=True)
        columns = (
            rows.tolist(),
            greeks,
            self._stats(rows, linear),
            _with_nulls(q.last[rows]),
            lowest.tolist(),
            highest.tolist(),
            q.open_interest[rows].tolist(),
            _rounded(q.mark[rows], _MARK_DIGITS),
            np.where(no_ask, 0.0, ask).tolist(),
            np.where(no_bid, 0.0, bid).tolist(),
            _rounded(100.0 * vol, 2),
            _percent(bid_vol),
            _percent(ask_vol),
            forward.tolist(),
            np.where(no_ask, 0.0, q.ask_size[rows]).tolist(),
            np.where(no_bid, 0.0, q.bid_size[rows]).tolist(),
            q.settlement[rows].tolist(),
        )
        names, index_names, underlyings = self._listing.names, self._listing.underlying_index, self._listing.underlyings
        index = {name: self._index(name) for name in self._quotes.market.underlyings}
        out = []
        # Thousands of these a second: the columns are unpacked side by side rather than looked up by name and row.
        for (row, (delta_, gamma_, vega_, theta_, rho_), stats, last, low, high, interest, mark, best_ask, best_bid,
             mark_iv, bid_iv, ask_iv, forward_, ask_size, bid_size, settlement) in zip(*columns, strict=True):  # fmt: skip
            underlying = underlyings[row]
            ticker = {
                "timestamp": time_ms,
                "state": "open",
                "stats": stats,
                "greeks": {"delta": delta_, "gamma": gamma_, "vega": vega_, "theta": theta_, "rho": rho_},
                "index_price": index[underlying],
                "instrument_name": names[row],
                "last_price": last,
                "min_price": low,
                "max_price": high,
                "open_interest": interest,
                "mark_price": mark,
                "interest_rate": 0.0,
                "estimated_delivery_price": index[underlying],
                "best_ask_price": best_ask,
                "best_bid_price": best_bid,
                "mark_iv": mark_iv,
                "bid_iv": bid_iv,
                "ask_iv": ask_iv,
                "underlying_price": round(forward_, TERMS[underlying].digits),
                "underlying_index": index_names[row],
                "best_ask_amount": ask_size,
                "best_bid_amount": bid_size,
            }
            if settlement == settlement:
                ticker["settlement_price"] = round(settlement, 8)
            out.append(ticker)
        return out

    def _futures(self, rows: npt.NDArray[np.intp], time_ms: int) -> list[dict[str, Any]]:
        q, universe = self._quotes, self._quotes.universe
        out = []
        for row, stats in zip(rows.tolist(), self._stats(rows, np.ones(len(rows), np.bool_)), strict=True):
            underlying = self._listing.underlyings[row]
            digits, index = TERMS[underlying].digits, self._index(underlying)
            mark, tick = float(q.mark[row]), float(universe.tick_size[row])
            ticker = {
                "timestamp": time_ms,
                "state": "open",
                "stats": stats,
                "index_price": index,
                "instrument_name": self._listing.names[row],
                "last_price": _with_nulls(q.last[[row]])[0],
                "min_price": round(round(mark * 0.985 / tick) * tick, 10),
                "max_price": round(round(mark * 1.015 / tick) * tick, 10),
                "open_interest": round(float(q.open_interest[row])),
                "mark_price": round(mark, digits),
                "estimated_delivery_price": index,
                "best_ask_price": float(q.ask[row]),
                "best_bid_price": float(q.bid[row]),
                "best_ask_amount": float(q.ask_size[row]),
                "best_bid_amount": float(q.bid_size[row]),
            }
            if q.settlement[row] == q.settlement[row]:
                ticker["settlement_price"] = round(float(q.settlement[row]), digits)
            if universe.kind[row] == Kind.PERPETUAL:
                ticker |= {"current_funding": 1.2e-05, "funding_8h": 5.1e-06, "interest_value": 0.0013}
            out.append(ticker)
        return out

    def _stats(self, rows: npt.NDArray[np.intp], notional: BoolArray) -> list[dict[str, float | None]]:
        q = self._quotes
        high, low, last = q.high[rows], q.low[rows], q.last[rows]
        change = _with_nulls(np.round(100.0 * (last / np.where(low > 0, low, np.nan) - 1.0), 4))
        dollars = q.volume_usd[rows].tolist()
        columns = (_with_nulls(high), _with_nulls(low), change, _rounded(q.volume[rows], 4), dollars, notional.tolist())
        out = []
        for high_, low_, change_, volume, volume_usd, with_notional in zip(*columns, strict=True):
            stats = {
                "high": high_,
                "low": low_,
                "price_change": change_,
                "volume": volume,
                "volume_usd": volume_usd,
            }
            if with_notional:
                stats["volume_notional"] = volume_usd
            out.append(stats)
        return out


def _with_nulls(column: FloatArray) -> list[float | None]:
    return [None if value != value else value for value in column.tolist()]


def _rounded(column: FloatArray, digits: int) -> list[float]:
    # Adding zero turns the -0.0 of a rounded small negative into 0.0.
    return (np.round(column, digits) + 0.0).tolist()  # type: ignore[no-any-return]


def _percent(vols: FloatArray) -> list[float]:
    # 0.0 stands for "no side" and for "below intrinsic" alike; three digits are the most the venue shows.
    return np.where(np.isnan(vols), 0.0, np.round(np.minimum(100.0 * vols, 999.0), 2)).tolist()  # type: ignore[no-any-return]
