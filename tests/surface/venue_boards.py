"""Boards on which several venues quote one truth: one vol at each log-moneyness, every venue's strikes in its own currency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.surface.quoted_market import DAY, NOW, SLICES
from volsurf.instruments import Instrument, Kind, Settlement, Universe
from volsurf.iv.black import black_price
from volsurf.quotes import Field, QuoteBatch, QuoteBoard
from volsurf.surface.quote_vols import QuoteVols
from volsurf.svi.params import RawSVI

SPOT = 90_000.0
CARRY = 0.05
STEP = {7: 1_000.0, 30: 2_000.0, 180: 5_000.0}


@dataclass(frozen=True)
class Book:
    """What one venue quotes in one currency. Vols and shares are decimals."""

    venue: str
    currency: str = "USD"
    settlement: Settlement = Settlement.INVERSE
    basis: float = 0.0
    """By how much its currency's price of a coin stands off the dollar's."""
    half_spread: float = 0.004
    shift: float = 0.0
    """Added to every vol: a mispricing."""
    is_discounted: bool = False
    says_forward: bool = True
    says_index: bool = True
    days: Sequence[int] = (7, 30, 180)
    legs: str = "both"
    """"both", or "calls"."""
    quotes_at: tuple[float, float] = (-2.5, 2.5)
    """Standard deviations between which it lists strikes."""

    @property
    def spot(self) -> float:
        return SPOT * (1.0 + self.basis)

    def forward(self, days: int) -> float:
        return self.spot * float(np.exp(CARRY * days / 365))

    def instruments(self) -> list[Instrument]:
        legs = (False, True) if self.legs == "both" else (True,)
        return [
            self._instrument(days, float(k), leg) for days in self.days for k in self._strikes(days) for leg in legs
        ]

    def _strikes(self, days: int) -> np.ndarray:
        deviation = float(np.sqrt(SLICES[days].total_variance(0.0)))
        low, high = (self.forward(days) * np.exp(d * deviation) for d in self.quotes_at)
        return np.arange(np.ceil(low / STEP[days]) * STEP[days], high, STEP[days])

    def _instrument(self, days: int, strike: float, is_call: bool) -> Instrument:
        return Instrument(
            venue=self.venue,
            symbol=f"{self.currency}-{self.settlement.name}-{days}-{strike:g}-{'C' if is_call else 'P'}",
            kind=Kind.OPTION,
            underlying="BTC",
            settlement=self.settlement,
            quote_currency=self.currency,
            is_discounted=self.is_discounted,
            expiry_ns=NOW + days * DAY,
            strike=strike,
            is_call=is_call,
            tick_size=1e-5 if self.settlement is Settlement.INVERSE else 0.5,
            price_index=f"btc_{self.currency.lower()}",
        )

    def batch(self, universe: Universe, now_ns: int = NOW) -> QuoteBatch:
        listed = self.instruments()
        ids = universe.add(listed)
        strike, is_call = np.array([i.strike for i in listed]), np.array([i.is_call for i in listed])
        days = np.array([(i.expiry_ns - NOW) // DAY for i in listed])
        forward = np.array([self.forward(int(d)) for d in days])
        years = days / 365
        vol = truth(np.log(strike / forward), days) + self.shift
        unit = forward if self.settlement is Settlement.INVERSE else np.ones(len(listed))
        discount = self.spot / forward if self.is_discounted else 1.0
        bid, mark, ask = (
            discount * black_price(forward, strike, years, np.maximum(v, 1e-3), is_call) / unit
            for v in (vol - self.half_spread, vol, vol + self.half_spread)
        )
        return QuoteBatch(
            ids,
            int(Field.QUOTE | Field.MARK | Field.FORWARD | Field.INDEX),
            bid=bid,
            ask=ask,
            bid_size=1.0,
            ask_size=1.0,
            mark=mark,
            mark_vol=vol,
            forward=forward if self.says_forward else np.nan,
            index=self.spot if self.says_index else np.nan,
            venue_time_ns=now_ns,
            receive_time_ns=now_ns,
        )


FOUR = (
    Book("deribit"),
    Book("okx", basis=0.0001, half_spread=0.006),
    Book("bybit", "USDC", Settlement.LINEAR, basis=0.0003, half_spread=0.006),
    Book("bybit", "USDT", Settlement.LINEAR, basis=-0.0012, half_spread=0.008),
    Book("binance", "USDT", Settlement.LINEAR, basis=-0.0010, half_spread=0.010, is_discounted=True),
)
"""Four venues in five books, a USDT that stands 12 and 10 bp off the dollar, and one that discounts."""


def truth(k: np.ndarray, days: np.ndarray | int) -> np.ndarray:
    """Vol at log-moneyness, shape as given."""
    k, days = np.broadcast_arrays(np.asarray(k, float), days)
    vol = np.full(k.shape, np.nan)
    for each, svi in SLICES.items():
        mine = days == each
        vol[mine] = RawSVI.vol(svi, k[mine], each / 365)
    return vol


def board_of(books: Sequence[Book], board: QuoteBoard | None = None, now_ns: int = NOW) -> QuoteBoard:
    """A board that all of them have quoted on."""
    board = QuoteBoard(Universe()) if board is None else board
    for book in books:
        board.apply(book.batch(board.universe, now_ns))
    return board


def true_vol(quotes: QuoteVols, books: Sequence[Book]) -> np.ndarray:
    """Truth at every row's own moneyness, mispricings left out."""
    layout = quotes.layout
    spot = {(b.venue, b.currency, int(b.settlement)): b.spot for b in books}
    days = (quotes.expiry_ns - NOW) // DAY
    keys = [
        (layout.venues[layout.market_venue[m]], layout.market_currency[m], int(not layout.market_inverse[m]))
        for m in layout.market.tolist()
    ]
    forward = np.array([spot[key] for key in keys]) * np.exp(CARRY * days / 365)
    return truth(np.log(quotes.strike / forward), days)


def rows_of(quotes: QuoteVols, venue: str, currency: str | None = None) -> np.ndarray:
    """Mask of the rows of a venue, in one currency if named."""
    layout = quotes.layout
    mine = layout.venue == layout.venues.index(venue)
    if currency is not None:
        mine &= np.array([layout.market_currency[m] == currency for m in layout.market.tolist()])
    return mine
