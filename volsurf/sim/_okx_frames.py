"""The objects OKX pushes. Keys, types and roundings are those of captured frames: every number is a string but the sequence."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.instruments import FloatArray, Settlement
from volsurf.sim._okx_listing import OkxListing, family_name, text
from volsurf.sim.depth import Ladder, updates
from volsurf.sim.quoting import QuoteModel, Trade

STAMP_KEY = b'"ts":"'
SIZE_DIGIT = re.compile(rb'\[\["[0-9.]+","([1-9])')
"""The first digit of a best size: what a burst varies besides the time."""
VOL_CAP = 5.0
LEVER_CAP = 10_000.0
_DAYS = 365.0


def push(arg: str, data: object, action: str = "") -> bytes:
    """One pushed message of a channel, whose argument is JSON already."""
    said = f'"action":"{action}",' if action else ""
    return f'{{"arg":{arg},{said}"data":'.encode() + msgspec.json.encode(data) + b"}"


class Renderer:
    """Turns rows of the quote model into OKX's objects."""

    def __init__(self, listing: OkxListing, quotes: QuoteModel) -> None:
        self._listing = listing
        self._quotes = quotes

    def contracts(self, row: int, size: float) -> str:
        """A size of the model (coins; dollars of inverse futures) as the venue counts it."""
        return str(max(1, round(size / self._listing.universe[row].contract_size)))

    def best(self, row: int, time_ms: int, sequence: int) -> list[dict[str, Any]]:
        """`bbo-tbt`"""
        q = self._quotes
        asks, bids = self._level(row, q.ask, q.ask_size), self._level(row, q.bid, q.bid_size)
        return [{"asks": asks, "bids": bids, "ts": str(time_ms), "seqId": sequence}]

    def ticker(self, row: int, time_ms: int) -> list[dict[str, Any]]:
        """`tickers`: an empty side is `""`."""
        q, listing = self._quotes, self._listing
        bid, ask = float(q.bid[row]), float(q.ask[row])
        last, high, low = (text(float(column[row])) for column in (q.last, q.high, q.low))
        return [
            {
                "instType": listing.objects[row]["instType"],
                "instId": listing.names[row],
                "last": last,
                "lastSz": "1" if last else "",
                "askPx": text(ask),
                "askSz": "" if ask != ask else self.contracts(row, float(q.ask_size[row])),
                "bidPx": text(bid),
                "bidSz": "" if bid != bid else self.contracts(row, float(q.bid_size[row])),
                "open24h": last,
                "high24h": high,
                "low24h": low,
                "sodUtc0": last,
                "sodUtc8": last,
                "volCcy24h": text(float(q.volume[row])),
                "vol24h": text(round(float(q.volume[row]) / listing.universe[row].contract_size)),
                "ts": str(time_ms),
            }
        ]

    def summaries(self, rows: npt.NDArray[np.integer], time_ms: int) -> list[dict[str, Any]]:
        """Rows of `opt-summary`. Greeks without suffix are of the coin premium, those with `BS` in dollars and per spot."""
        q, universe, names = self._quotes, self._listing.universe, self._listing.names
        forward, vol, v = q.forward[rows], q.vol[rows], q.v[rows]
        linear = universe.settlement[rows] == Settlement.LINEAR
        premium = np.where(linear, q.mark[rows] / forward, q.mark[rows])
        root_years = v / vol
        spots = {f: self._quotes.market.spot(f.underlying, f.quote_currency) for f in self._listing.families}
        spot = np.array([spots[self._listing.family[row]] for row in rows.tolist()])
        density = q.vega[rows]
        delta_bs = q.delta[rows]
        gamma_bs = density / (spot * v)
        vega_bs = 0.01 * spot * density * root_years
        theta_bs = -0.5 * spot * density * vol / root_years / _DAYS
        bid_vol, ask_vol = q.side_vols(rows)
        with np.errstate(divide="ignore", over="ignore"):
            lever = np.where(premium > 0, np.minimum(1.0 / premium, LEVER_CAP), LEVER_CAP)
        columns = {
            "delta": delta_bs - premium,
            "gamma": spot * gamma_bs - 2.0 * (delta_bs - premium),
            "vega": vega_bs / spot,
            "theta": theta_bs / spot,
            "lever": lever,
            "markVol": vol,
            "deltaBS": delta_bs,
            "gammaBS": gamma_bs,
            "thetaBS": theta_bs,
            "vegaBS": vega_bs,
        }
        words = {name: [f"{value:.10f}" for value in column.tolist()] for name, column in columns.items()}
        words["bidVol"] = _vol_words(bid_vol, q.bid[rows])
        words["askVol"] = _vol_words(ask_vol, q.ask[rows])
        words["fwdPx"] = [f"{value:.9f}" for value in forward.tolist()]
        words["volLv"] = [f"{value:.10f}" for value in self._at_the_money(rows).tolist()]
        fixed = {"instType": "OPTION", "realVol": "", "ts": str(time_ms)}
        out = []
        for row, *values in zip(rows.tolist(), *words.values(), strict=True):
            uly = self._listing.objects[row]["uly"]
            out.append(fixed | {"instId": names[row], "uly": uly} | dict(zip(words, values, strict=True)))
        return out

    def index(self, name: str, spot: float, time_ms: int) -> list[dict[str, Any]]:
        """`index-tickers`"""
        price = text(round(spot, 2 if spot > 1000 else 4))
        days = dict.fromkeys(("high24h", "open24h", "low24h", "sodUtc0", "sodUtc8"), price)
        return [{"instId": name, "idxPx": price, **days, "ts": str(time_ms)}]

    def mark(self, row: int, time_ms: int) -> list[dict[str, Any]]:
        """`mark-price`, in dollars whatever the settlement: the only capture there is can only be that."""
        q, instrument = self._quotes, self._listing.universe[row]
        in_coin = instrument.settlement is Settlement.INVERSE and instrument.strike == instrument.strike
        mark = float(q.mark[row]) * (float(q.forward[row]) if in_coin else 1.0)
        kind = self._listing.objects[row]["instType"]
        return [{"instId": instrument.symbol, "instType": kind, "markPx": text(mark), "ts": str(time_ms)}]

    def option_trade(self, trade: Trade) -> dict[str, Any]:
        """A row of `option-trades`."""
        q, row, instrument = self._quotes, trade.row, self._listing.universe[trade.row]
        bid_vol, ask_vol = q.side_vols(np.array([row]))
        vol = float(ask_vol[0] if trade.is_buy else bid_vol[0])
        family = self._listing.family[row]
        index = q.market.spot(family.underlying, family.quote_currency)
        return self.trade(trade) | {
            "instFamily": family_name(family),
            "optType": "C" if instrument.is_call else "P",
            "fillVol": "0" if vol != vol else f"{vol:.10f}",
            "fwdPx": f"{float(q.forward[row]):.9f}",
            "idxPx": text(round(index, 4)),
            "markPx": f"{float(q.mark[row]):.14f}",
        }

    def trade(self, trade: Trade) -> dict[str, Any]:
        """A row of `trades`."""
        return {
            "instId": self._listing.names[trade.row],
            "tradeId": str(trade.instrument_number),
            "px": text(trade.price),
            "sz": self.contracts(trade.row, trade.amount),
            "side": "buy" if trade.is_buy else "sell",
            "ts": str(trade.time_ns // 1_000_000),
        }

    def book(self, row: int, book: Ladder, time_ms: int, *, previous: int | None, levels: int = 400) -> dict[str, Any]:
        """A whole book: `books` where it has a number before it, else `books5`."""
        sides = {"asks": book.asks, "bids": book.bids}
        data: dict[str, Any] = {
            name: [self._book_level(row, price, size) for price, size in list(side.items())[:levels]]
            for name, side in sides.items()
        }
        return self._numbered(data, book.change_id, previous, time_ms)

    def change(self, row: int, old: Ladder, new: Ladder, time_ms: int) -> dict[str, Any]:
        """What turns one book into the next; empty sides where nothing does."""
        data: dict[str, Any] = {
            "asks": [self._book_level(row, *level) for level in updates(old.asks, new.asks)],
            "bids": [self._book_level(row, *level) for level in updates(old.bids, new.bids)],
        }
        return self._numbered(data, new.change_id, old.change_id, time_ms)

    def _numbered(self, data: dict[str, Any], sequence: int, previous: int | None, time_ms: int) -> dict[str, Any]:
        tail = {} if previous is None else {"checksum": 0, "prevSeqId": previous}
        return data | {"ts": str(time_ms)} | tail | {"seqId": sequence}

    def _level(self, row: int, price: FloatArray, size: FloatArray) -> list[list[str]]:
        value = float(price[row])
        return [] if value != value else [[text(value), self.contracts(row, float(size[row])), "0", "1"]]

    def _book_level(self, row: int, price: float, size: float) -> list[str]:
        return [text(price), self.contracts(row, size) if size else "0", "0", "1" if size else "0"]

    def _at_the_money(self, rows: npt.NDArray[np.integer]) -> FloatArray:
        universe, market = self._listing.universe, self._quotes.market
        vols: dict[tuple[str, int], float] = {}
        for row in rows.tolist():
            instrument = universe[row]
            key = instrument.underlying, instrument.expiry_ns
            if key not in vols:
                forward = float(market.truth_forward(*key))
                vols[key] = float(market.truth_vol(*key, forward))
        return np.array([vols[universe[row].underlying, universe[row].expiry_ns] for row in rows.tolist()])


def _vol_words(vol: FloatArray, price: FloatArray) -> list[str]:
    words = []
    for value, quoted in zip(vol.tolist(), price.tolist(), strict=True):
        if quoted != quoted:
            words.append("")
        elif value != value:
            words.append("0")
        else:
            words.append("5" if value >= VOL_CAP else f"{value:.10f}")
    return words
