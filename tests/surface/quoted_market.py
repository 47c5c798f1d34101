"""Boards and chains quoted around a known surface, for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from volsurf.instruments import NANOSECONDS_PER_YEAR, Instrument, Kind, Settlement, Universe
from volsurf.iv.black import black_price
from volsurf.quotes import Field, QuoteBatch, QuoteBoard
from volsurf.svi.params import RawSVI

NOW = 1_780_000_000_000_000_000
DAY = 86_400_000_000_000
Floats = npt.NDArray[np.float64]

SLICES = {
    7: RawSVI(-0.0010, 0.030, -0.10, 0.002, 0.120),
    30: RawSVI(-0.0080, 0.080, -0.15, 0.010, 0.300),
    180: RawSVI(-0.0500, 0.220, -0.20, 0.050, 0.700),
}
"""By days to expiry: free of arbitrage, 41 to 47 % at the money."""


@dataclass(frozen=True)
class Row:
    """One option and its quote, in the venue's unit."""

    expiry_ns: int
    strike: float
    is_call: bool
    bid: float
    ask: float
    forward: float
    mark: float
    vol: float


@dataclass(frozen=True)
class Quoted:
    """A market of one underlying: `rows()` quotes it, `board()` and `chain_frame()` put it where the code reads it."""

    underlying: str = "BTC"
    settlement: Settlement = Settlement.INVERSE
    spot: float = 90_000.0
    carry: float = 0.04
    half_spread: float = 0.005
    """In vol."""
    tick: float = 0.0
    """Quotes are rounded outwards to it, in the venue's unit; 0 for exact."""
    slices: dict[int, RawSVI] = field(default_factory=lambda: SLICES)
    reach: float = 3.0
    strikes: int = 25

    def forward(self, days: float) -> float:
        return self.spot * float(np.exp(self.carry * days / 365))

    def strikes_of(self, days: int) -> Floats:
        deviation = float(np.sqrt(self.slices[days].total_variance(0.0)))
        return self.forward(days) * np.exp(deviation * np.linspace(-self.reach, self.reach, self.strikes))

    def rows(self) -> list[Row]:
        made = []
        for days, svi in self.slices.items():
            years, forward = days / 365, self.forward(days)
            for strike in self.strikes_of(days):
                vol = float(svi.vol(np.log(strike / forward), years))
                for is_call in (False, True):
                    low, mid, high = (
                        float(black_price(forward, strike, years, v, is_call))
                        for v in (vol - self.half_spread, vol, vol + self.half_spread)
                    )
                    unit = forward if self.settlement is Settlement.INVERSE else 1.0
                    bid, mark, ask = low / unit, mid / unit, high / unit
                    if self.tick:
                        bid, ask = np.floor(bid / self.tick) * self.tick, np.ceil(ask / self.tick) * self.tick
                    made.append(Row(NOW + days * DAY, float(strike), is_call, bid, ask, forward, mark, vol))
        return made

    def instrument(self, row: Row, venue: str = "test") -> Instrument:
        name = f"{self.underlying}-{row.expiry_ns}-{row.strike!r}-{'C' if row.is_call else 'P'}-{self.settlement.name}"
        return Instrument(
            venue=venue,
            symbol=name,
            kind=Kind.OPTION,
            underlying=self.underlying,
            settlement=self.settlement,
            expiry_ns=row.expiry_ns,
            strike=row.strike,
            is_call=row.is_call,
            tick_size=self.tick or 1e-4,
        )


def board_of(market: Quoted, rows: Iterable[Row] | None = None, **columns: npt.ArrayLike) -> QuoteBoard:
    """A board with one quote a row, all heard of now; `columns` override the batch's."""
    rows = list(market.rows() if rows is None else rows)
    universe = Universe(market.instrument(row) for row in rows)
    board = QuoteBoard(universe)
    given: dict[str, npt.ArrayLike] = {
        "bid": [r.bid for r in rows],
        "ask": [r.ask for r in rows],
        "forward": [r.forward for r in rows],
        "mark": [r.mark for r in rows],
        "index": market.spot,
        "venue_time_ns": NOW,
        "receive_time_ns": NOW,
    }
    every = Field.QUOTE | Field.MARK | Field.FORWARD | Field.INDEX
    board.apply(QuoteBatch(np.arange(len(rows)), every, **(given | columns)))
    return board


def chain_frame(market: Quoted, rows: Iterable[Row] | None = None) -> pl.DataFrame:
    """The rows as a chain's table."""
    rows = list(market.rows() if rows is None else rows)
    return pl.DataFrame(
        {
            "underlying": [market.underlying] * len(rows),
            "expiry": pl.Series([r.expiry_ns for r in rows], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC")),
            "strike": [r.strike for r in rows],
            "option_type": ["call" if r.is_call else "put" for r in rows],
            "bid": [r.bid for r in rows],
            "ask": [r.ask for r in rows],
            "forward": [r.forward for r in rows],
            "settlement": [market.settlement.name.lower()] * len(rows),
            "time": pl.Series([NOW] * len(rows), dtype=pl.Int64).cast(pl.Datetime("ns", "UTC")),
        }
    )


def without_forward(rows: Iterable[Row]) -> list[Row]:
    """The rows, the venue saying nothing of the forward."""
    return [replace(row, forward=float("nan")) for row in rows]


def years_of(row: Row) -> float:
    """ACT/365 from NOW."""
    return (row.expiry_ns - NOW) / NANOSECONDS_PER_YEAR
