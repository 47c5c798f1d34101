"""How simulated market makers quote the true surface: spreads, ticks, sizes, empty wings, stale books, trades.

Venue-neutral: it reads ticks and settlement from a `Universe` and the truth from a `Market`. After every `update` the true
price lies inside [bid, ask] of every option that is quoted on both sides and is not stale.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.instruments import BoolArray, FloatArray, IntArray, Kind, Settlement, Universe
from volsurf.sim.distortion import DISTORTIONS, Distortion, distorted
from volsurf.sim.market import UNDERLYINGS, Market
from volsurf.sim.pricing import black_delta, black_price, black_vega, implied_v

if TYPE_CHECKING:
    from volsurf.sim.profiles import VenueProfile

Book = tuple[str, str]
"""An underlying and the currency its strikes are quoted in: what shares a forward and a smile."""


@dataclass(frozen=True, slots=True)
class QuoteRules:
    """What the makers do. Vols are decimals, prices in units of the forward."""

    half_spread_vol: float = 0.0030
    """At the money, far from expiry; a day out it is 2.5 times that."""
    hedge_cost: float = 1.5e-4
    """Half-spread per unit of |delta|."""
    deep_cost: float = 1.2e-3
    """Extra half-spread of a contract that is all delta."""
    lean: float = 0.25
    """The mid lies off the truth by up to this share of the half-spread."""
    empty_wing: float = 0.30
    """Share of the options beyond a 2 % delta that have an empty side."""
    requote_share: float = 0.20
    """Share of the books that makers look at in one step; one whose truth left its quote is looked at in any case."""
    stale_share: float = 0.005
    """Share of the books that are not being updated."""
    stale_seconds: float = 45.0
    trades_per_step: float = 0.3
    resize_share: float = 0.01
    """Share of the books whose sizes change in one step."""


@dataclass(frozen=True, slots=True)
class Trade:
    """One execution against the book."""

    row: int
    price: float
    amount: float
    is_buy: bool
    time_ns: int
    number: int
    instrument_number: int


_FLOATS: tuple[str, ...] = (
    "bid",
    "ask",
    "bid_size",
    "ask_size",
    "last",
    "high",
    "low",
    "volume",
    "volume_usd",
    "open_interest",
)
_FLOATS += ("settlement", "forward", "vol", "v", "k", "mark", "delta", "vega")
_FLOATS += ("lots", "_lean", "_width", "_wing", "_typical")


class QuoteModel:
    """Books of every instrument of a universe, as arrays of shape (n,) indexed by row.

    With a profile the books are one venue's own: around the truth of the quote currency, at its opinion of the volatility, in
    its lots, with random numbers that no other venue draws. `mark` and `vol` are then the venue's opinion, not the truth.

    Prices are in the venue's unit: coin where settlement is inverse. NaN: no such side, no such trade. `delta`, `vega` (to
    v = σ√T, in units of the forward), `k` and `v` belong to options.
    """

    bid: FloatArray
    ask: FloatArray
    bid_size: FloatArray
    ask_size: FloatArray
    last: FloatArray
    high: FloatArray
    low: FloatArray
    volume: FloatArray
    volume_usd: FloatArray
    open_interest: FloatArray
    settlement: FloatArray
    """Mark at the last settlement; NaN for what was listed since."""
    forward: FloatArray
    vol: FloatArray
    v: FloatArray
    k: FloatArray
    mark: FloatArray
    delta: FloatArray
    vega: FloatArray
    lots: FloatArray
    """Step of the sizes, coins."""
    _lean: FloatArray
    _width: FloatArray
    _wing: FloatArray
    _typical: FloatArray
    """Logarithm of the median number of lots at the best price."""

    def __init__(
        self,
        market: Market,
        universe: Universe,
        rules: QuoteRules | None = None,
        profile: VenueProfile | None = None,
    ) -> None:
        self.market = market
        self.universe = universe
        self.profile = profile
        self.rules = rules or (profile.rules if profile is not None else QuoteRules())
        own = () if profile is None else (zlib.crc32(profile.name.encode()),)
        self._rng = np.random.default_rng([market.seed, 2, *own])
        self._rows = 0
        self._version = -1
        self.stale_until: IntArray = np.zeros(0, np.int64)
        self.trade_numbers: IntArray = np.zeros(0, np.int64)
        for name in _FLOATS:
            setattr(self, name, np.zeros(0))
        self._books: list[Book] = []
        """Of each row."""
        self._options: dict[Book, npt.NDArray[np.intp]] = {}
        self._futures: dict[Book, npt.NDArray[np.intp]] = {}
        self._points: dict[Book, tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = {}
        """Of a book's options: one position per (expiry, strike), and where each option finds its own among those."""
        self._trades = 0
        self._distortions: list[Distortion] = []
        self._forced: BoolArray = np.zeros(0, np.bool_)

    def update(self) -> tuple[BoolArray, list[Trade]]:
        """Requote at the market's instant. Returns the mask of rows whose top of book changed, shape (n,), and trades."""
        self._grow()
        before = [getattr(self, n).copy() for n in ("bid", "ask", "bid_size", "ask_size")]
        now = self.market.now_ns
        over = [d for d in self._distortions if d.until_ns <= now]
        self._distortions = [d for d in self._distortions if d.until_ns > now]
        # What is distorted, and what was until now, is quoted truly first.
        self._forced[:] = False
        for distortion in (*self._distortions, *over):
            self._forced[distortion.rows] = True
        self._go_stale(now)
        self._resize()
        for book, rows in self._options.items():
            if len(rows):
                self._value_options(book, rows)
                self._quote_options(
                    book[0], rows[self._looked_at(rows) & ((self.stale_until[rows] <= now) | self._forced[rows])]
                )
        for book, rows in self._futures.items():
            if len(rows):
                self._quote_futures(book, rows)
        self._distort()
        trades = self._trade(now)
        changed = np.zeros(self._rows, np.bool_)
        for old, name in zip(before, ("bid", "ask", "bid_size", "ask_size"), strict=True):
            new = getattr(self, name)
            changed |= (new != old) & ~(np.isnan(new) & np.isnan(old))
        return changed, trades

    def invent_history(self) -> None:
        """Give what is listed now a past: last trades, the day's range and volume, yesterday's settlement."""
        rows = np.arange(self._rows)
        # Premiums move more in a day than the futures they are written on.
        moved = np.where(self.universe.kind == Kind.OPTION, 0.08, 0.008)
        self.settlement[rows] = self.mark[rows] * np.exp(moved * self._rng.normal(size=self._rows))
        near = np.where(np.isnan(self.v), 0.0, np.abs(self.k) / np.where(self.v > 0, self.v, 1.0))
        traded = (self._rng.random(self._rows) < np.exp(-0.3 * near)) & (self.mark > 0)
        rows = rows[traded]
        price = self._to_tick(rows, self.mark[rows], up=True)
        self.last[rows] = self.low[rows] = price
        self.high[rows] = self._to_tick(
            rows, price * np.exp(moved[rows] * np.abs(self._rng.normal(size=len(rows)))), up=True
        )
        self.volume[rows] = np.round(np.exp(self._rng.normal(2.0, 1.5, len(rows))), 1)
        dollars = np.array([self._dollars(int(row)) for row in rows])
        self.volume_usd[rows] = np.round(self.volume[rows] * price * dollars, 2)

    def settle(self, rows: npt.NDArray[np.integer]) -> None:
        """Take today's mark as the settlement price and start the day's statistics again."""
        self.settlement[rows] = self.mark[rows]
        self.high[rows] = self.low[rows] = np.nan
        self.volume[rows] = self.volume_usd[rows] = 0.0

    def distort(self, kind: str, rows: npt.ArrayLike, until_ns: int, size: float = 0.0) -> None:
        """From the next update until a market time show false prices on some rows: a kind of `DISTORTIONS`."""
        if kind not in DISTORTIONS:
            raise InputError(f"prices can be {DISTORTIONS}, was {kind!r}")
        self._distortions.append(Distortion(kind, np.asarray(rows, np.intp), until_ns, size))

    def is_distorted(self, rows: npt.NDArray[np.integer]) -> BoolArray:
        """Whether the prices shown now are false on purpose, shape (m,)."""
        false = np.zeros(self._rows, np.bool_)
        for distortion in self._distortions:
            false[distortion.rows] = True
        return np.asarray(false[rows])

    def side_vols(self, rows: npt.NDArray[np.integer]) -> tuple[FloatArray, FloatArray]:
        """Implied vols of bid and ask, decimals; NaN for no side and for a price outside its bounds, shape (m,)."""
        k, v, forward = self.k[rows], self.v[rows], self.forward[rows]
        inverse = self.universe.settlement[rows] == Settlement.INVERSE
        sign = np.where(self.universe.is_call[rows], -1.0, 1.0)
        # In-the-money premiums less intrinsic are the other option's by parity.
        intrinsic = np.maximum(sign * np.expm1(k), 0.0)
        root_years = v / self.vol[rows]
        vols = []
        for price in (self.bid[rows], self.ask[rows]):
            otm = np.where(inverse, price, price / forward) - intrinsic
            vols.append(implied_v(k, np.where(np.isfinite(otm), otm, -1.0), v) / root_years)
        return vols[0], vols[1]

    def _value_options(self, book: Book, rows: npt.NDArray[np.intp]) -> None:
        underlying, currency = book
        expiry, strike = self.universe.expiry_ns[rows], self.universe.strike[rows]
        is_call = self.universe.is_call[rows]
        # A call and a put of one strike share a point of the smile; the mixture's points are the costly part.
        first, where = self._points[book]
        vol = self.market.truth_vol(underlying, expiry[first], strike[first], currency)
        if self.profile is not None:
            vol = vol + self._opinions(underlying, expiry[first])
        vol = vol[where]
        forward = self.market.truth_forward(underlying, expiry, currency)
        years = np.maximum(self.market.years(expiry), 1e-7)
        k, v = np.log(strike / forward), vol * np.sqrt(years)
        price = black_price(k, v, is_call)
        self.forward[rows], self.vol[rows], self.k[rows], self.v[rows] = forward, vol, k, v
        self.delta[rows], self.vega[rows] = black_delta(k, v, is_call), black_vega(k, v)
        self.mark[rows] = np.where(self.universe.settlement[rows] == Settlement.INVERSE, price, price * forward)

    def _opinions(self, underlying: str, expiry: IntArray) -> FloatArray:
        assert self.profile is not None
        distinct, where = np.unique(expiry, return_inverse=True)
        now = self.market.now_ns
        return np.array(
            [self.profile.vol_offset(self.market.seed, underlying, e, now) for e in distinct.tolist()], np.float64
        )[where]

    def _quote_options(self, underlying: str, rows: npt.NDArray[np.intp]) -> None:
        rules = self.rules
        inverse = self.universe.settlement[rows] == Settlement.INVERSE
        unit = np.where(inverse, 1.0, self.forward[rows])
        years = (self.v[rows] / self.vol[rows]) ** 2
        size = np.abs(self.delta[rows])
        deviations = np.abs(self.k[rows]) / self.v[rows]
        half_vol = rules.half_spread_vol * _near_expiry(years)
        half_vol = half_vol * (1.0 + 0.25 * deviations**2) * _MAKER_WIDTH.get(underlying, 2.0)
        half = self.vega[rows] * np.sqrt(years) * half_vol + rules.hedge_cost * size
        half = (half + rules.deep_cost * np.clip((size - 0.8) / 0.2, 0.0, 1.0)) * self._width[rows]
        truth = self.mark[rows] / unit
        bid = self._to_tick(rows, unit * (truth - half * (1.0 + self._lean[rows])), up=False)
        ask = self._to_tick(rows, unit * (truth + half * (1.0 - self._lean[rows])), up=True)
        wing = self._wing[rows]
        thin = np.minimum(size, 1.0 - size) < 0.02
        no_bid = (bid <= 0) | (thin & (wing < 0.8 * rules.empty_wing))
        no_ask = thin & (wing > 1.0 - 0.4 * rules.empty_wing)
        self.bid[rows] = np.where(no_bid, np.nan, bid)
        self.ask[rows] = np.where(no_ask, np.nan, ask)

    def _quote_futures(self, book: Book, rows: npt.NDArray[np.intp]) -> None:
        underlying, currency = book
        expiry = self.universe.expiry_ns[rows]
        dated = self.universe.kind[rows] == Kind.FUTURE
        spot = self.market.spot(underlying, currency)
        forward = np.where(dated, self.market.truth_forward(underlying, expiry, currency), spot * (1.0 + 2e-5))
        tick = self.universe.tick_size[rows]
        self.forward[rows] = self.mark[rows] = forward
        self.vol[rows] = self.v[rows] = self.k[rows] = np.nan
        width = np.where(dated, 4.0, 1.0) * tick * self._width[rows]
        self.bid[rows] = np.round(np.floor((forward - 0.5 * width) / tick) * tick, 10)
        self.ask[rows] = np.round(np.ceil((forward + 0.5 * width) / tick) * tick, 10)

    def _distort(self) -> None:
        for distortion in self._distortions:
            rows = distortion.rows[self.universe.active[distortion.rows]]
            bid, ask = distorted(distortion.kind, self.bid[rows], self.ask[rows], distortion.size)
            if distortion.kind == "spike":
                bid, ask = self._to_tick(rows, bid, up=False), self._to_tick(rows, ask, up=True)
            self.bid[rows], self.ask[rows] = bid, ask

    def _looked_at(self, rows: npt.NDArray[np.intp]) -> BoolArray:
        left = ~(self.bid[rows] < self.mark[rows]) & ~np.isnan(self.bid[rows])
        left |= ~(self.ask[rows] > self.mark[rows])
        left |= self._forced[rows]
        return np.asarray(left | (self._rng.random(len(rows)) < self.rules.requote_share))

    def _to_tick(self, rows: npt.NDArray[np.intp], price: FloatArray, *, up: bool) -> FloatArray:
        tick = self.universe.ticks(rows, price)
        ticks = np.ceil(price / tick) if up else np.floor(price / tick)
        # A multiple of a tick is a decimal with few digits; rounding gives the double that the decimal parses to.
        return np.asarray(np.round(np.maximum(ticks, 0.0) * tick, 10))

    def _resize(self) -> None:
        draw = self._rng.random(self._rows)
        for name, low in (("bid_size", 0.0), ("ask_size", 0.5)):
            rows = np.flatnonzero((draw >= low) & (draw < low + 0.5 * self.rules.resize_share))
            getattr(self, name)[rows] = self._sizes(rows)
        # Makers also move their lean now and then, a tenth as often.
        rows = np.flatnonzero((draw > 0.4) & (draw < 0.4 + 0.1 * self.rules.resize_share))
        self._lean[rows] = self._rng.uniform(-self.rules.lean, self.rules.lean, len(rows))

    def _sizes(self, rows: npt.NDArray[np.integer]) -> FloatArray:
        lots = np.exp(self._rng.normal(self._typical[rows], 1.2))
        return np.asarray(np.round(np.ceil(lots) * self.lots[rows], 4))

    def _go_stale(self, now: int) -> None:
        if self.rules.stale_share <= 0:
            return
        seconds = self.market.step_ns * 1e-9
        chance = self.rules.stale_share * seconds / self.rules.stale_seconds
        starts = (self._rng.random(self._rows) < chance) & (self.stale_until <= now) & np.isfinite(self.bid)
        starts &= self.universe.kind == Kind.OPTION
        rows = np.flatnonzero(starts)
        lasts = self._rng.exponential(self.rules.stale_seconds, len(rows))
        self.stale_until[rows] = now + (lasts * 1e9).astype(np.int64)

    def _trade(self, now: int) -> list[Trade]:
        trades = []
        for _ in range(int(self._rng.poisson(self.rules.trades_per_step))):
            liquid = np.flatnonzero(np.isfinite(self.bid) & np.isfinite(self.ask) & self.universe.active)
            if not len(liquid):
                break
            weight = (
                np.where(np.isnan(self.v[liquid]), 3.0, np.exp(-0.5 * (self.k[liquid] / self.v[liquid]) ** 2)) + 0.02
            )
            row = int(self._rng.choice(liquid, p=weight / weight.sum()))
            is_buy = bool(self._rng.random() < 0.5)
            price = float(self.ask[row] if is_buy else self.bid[row])
            available = float(self.ask_size[row] if is_buy else self.bid_size[row])
            unit = float(self.lots[row]) * (1.0 if self.universe.kind[row] == Kind.OPTION else 0.1)
            amount = round(min(available, unit * (1 + int(self._rng.exponential(20.0)))), 4)
            self._trades += 1
            self.trade_numbers[row] += 1
            self.last[row] = price
            self.high[row] = np.fmax(self.high[row], price)
            self.low[row] = np.fmin(self.low[row], price)
            self.volume[row] += amount
            self.volume_usd[row] = round(self.volume_usd[row] + amount * price * self._dollars(row), 2)
            trades.append(Trade(row, price, amount, is_buy, now, self._trades, int(self.trade_numbers[row])))
        return trades

    def _dollars(self, row: int) -> float:
        if self.universe.kind[row] != Kind.OPTION or self.universe.settlement[row] != Settlement.INVERSE:
            return 1.0
        return float(self.forward[row])

    def _grow(self) -> None:
        if self._version == self.universe.version:
            return
        self._version = self.universe.version
        old, new = self._rows, len(self.universe)
        for name in _FLOATS:
            setattr(self, name, np.concatenate((getattr(self, name), np.full(new - old, np.nan))))
        self.stale_until = np.concatenate((self.stale_until, np.zeros(new - old, np.int64)))
        self.trade_numbers = np.concatenate((self.trade_numbers, np.zeros(new - old, np.int64)))
        self._forced = np.zeros(new, np.bool_)
        self._rows = new
        rows = np.arange(old, new)
        self._lean[rows] = self._rng.uniform(-self.rules.lean, self.rules.lean, len(rows))
        self._width[rows] = np.exp(self._rng.normal(0.0, 0.15, len(rows)))
        self._wing[rows] = self._rng.random(len(rows))
        self._take_terms(rows)
        self.bid_size[rows], self.ask_size[rows] = self._sizes(rows), self._sizes(rows)
        dollars = np.where(self.universe.kind[rows] == Kind.OPTION, 1.0, 1e5)
        self.open_interest[rows] = np.round(dollars * np.exp(self._rng.normal(3.0, 2.0, len(rows))), 1)
        self.volume[rows] = self.volume_usd[rows] = 0.0
        self._arrange()

    def _take_terms(self, rows: npt.NDArray[np.intp]) -> None:
        # Options trade in tenths of a contract, futures in whole ones of 1 or 10 dollars and by the ten thousand.
        option = self.universe.kind[rows] == Kind.OPTION
        self.lots[rows] = self.universe.contract_size[rows] * np.where(option, 0.1, 100.0)
        self._typical[rows] = 4.4
        instruments = [self.universe[int(row)] for row in rows]
        if self.profile is None:
            # A stablecoin is taken for a dollar.
            self._books += [(i.underlying, "USD") for i in instruments]
            return
        self._books += [(i.underlying, i.quote_currency) for i in instruments]
        for row, instrument in zip(rows.tolist(), instruments, strict=True):
            if instrument.kind is Kind.OPTION:
                lot = self.lots[row] = self.profile.family_of(instrument).lot
                typical = self.profile.typical_lots.get(instrument.underlying)
                self._typical[row] = 4.4 if typical is None else math.log(max(typical / lot, 1.0))

    def _arrange(self) -> None:
        of_book: dict[Book, list[int]] = {}
        for row, book in enumerate(self._books):
            of_book.setdefault(book, []).append(row)
        live = {book: np.array(rows, np.intp) for book, rows in of_book.items()}
        for book in sorted(live, key=lambda b: (self.market.underlyings.index(b[0]), b[1])):
            rows = live[book][self.universe.active[live[book]]]
            option = self.universe.kind[rows] == Kind.OPTION
            self._options[book], self._futures[book] = rows[option], rows[~option]
            rows = rows[option]
            keys = np.column_stack((self.universe.expiry_ns[rows].astype(np.float64), self.universe.strike[rows]))
            _, first, where = np.unique(keys, axis=0, return_index=True, return_inverse=True)
            self._points[book] = (first.astype(np.intp), where.astype(np.intp))
        dead = ~self.universe.active
        self.bid[dead] = self.ask[dead] = np.nan


def reference_half_spread(underlying: str, years: float) -> float:
    """Half-spread of the default rules at the money, a decimal of volatility."""
    return float(QuoteRules().half_spread_vol * _near_expiry(years) * _MAKER_WIDTH.get(underlying, 2.0))


def _near_expiry(years: npt.ArrayLike) -> FloatArray:
    years = np.asarray(years, np.float64)
    return np.asarray(1.0 + 1.5 * np.minimum(1.0, np.sqrt(1.0 / 365.0 / years)))


_MAKER_WIDTH = {"BTC": 1.0, "ETH": 1.4}
assert set(_MAKER_WIDTH) <= set(UNDERLYINGS)
