"""What the simulated Deribit lists: names, ticks, strikes and the rows of `public/get_instruments`."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import numpy as np

from volsurf.instruments import NANOSECONDS_PER_YEAR, IdArray, Instrument, Kind, Settlement, Universe
from volsurf.sim.listing import EXPIRY_HOUR, from_ns, listed_expiries, strike_grid
from volsurf.sim.market import UNDERLYINGS, Market

_DAY_NS = 86_400_000_000_000
_DENSITY = {"day": 6.5, "week": 8.5, "month": 9.5}
_PERPETUAL_EXPIRY_MS = 32_503_708_800_000
"""Year 3000: what the venue writes for a contract without expiry."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How Deribit lists one underlying."""

    prefix: str
    settlement: Settlement
    currency: str
    """Under which it is discovered and its trades and lifecycle are published."""
    index: str
    tick: float
    tick_steps: tuple[tuple[float, float], ...]
    contract_size: float
    min_trade_amount: float
    future_tick: float
    future_contract: float
    smallest_step: float
    density: float
    """Relative to Bitcoin's."""
    digits: int
    """Decimals of index and forward."""
    maker_tier: str


_COIN_STEPS = ((0.005, 0.0005),)
TERMS: dict[str, Terms] = {
    "BTC": Terms(
        "BTC", Settlement.INVERSE, "BTC", "btc_usd", 0.0001, _COIN_STEPS, 1.0, 0.1, 2.5, 10.0, 500.0, 1.0, 2, "BTC"
    ),
    "ETH": Terms(
        "ETH", Settlement.INVERSE, "ETH", "eth_usd", 0.0001, _COIN_STEPS, 1.0, 1.0, 0.05, 1.0, 25.0, 0.85, 2, "ETH"
    ),
    "SOL": Terms(
        "SOL_USDC", Settlement.LINEAR, "USDC", "sol_usdc", 0.01, (), 10.0, 10.0, 0.01, 0.1, 1.0, 0.6, 4, "TIER_2"
    ),
    "XRP": Terms(
        "XRP_USDC",
        Settlement.LINEAR,
        "USDC",
        "xrp_usdc",
        0.0005,
        (),
        1000.0,
        1000.0,
        0.0001,
        10.0,
        0.025,
        0.6,
        4,
        "TIER_2",
    ),
}


@dataclass(frozen=True, slots=True)
class _Grid:
    """How the strikes of an expiry were laid out: around which spot last, and with which steps."""

    spot: float
    years: float


def expiry_code(expiry_ns: int) -> str:
    """`25DEC26`: no leading zero of the day."""
    moment = from_ns(expiry_ns)
    return f"{moment.day}{moment:%b%y}".upper()


def strike_code(strike: float) -> str:
    """`77000`, `142d5`: the decimal point is a d."""
    return np.format_float_positional(strike, trim="-").replace(".", "d")


class DeribitListing:
    """The universe of one market as Deribit lists it; `update` lists and retires as time and spot go on.

    Beside every row of `universe` stand its name, its underlying, its encoded object of get_instruments (`rows`) and its
    `underlying_index`.
    """

    def __init__(self, market: Market) -> None:
        self.market = market
        self.universe = Universe()
        self.names: list[str] = []
        self.rows: list[msgspec.Raw] = []
        self.underlyings: list[str] = []
        self.underlying_index: list[str] = []
        self.row_of: dict[str, int] = {}
        self._grids: dict[tuple[str, int], _Grid] = {}
        self._next_expiry_ns = 0
        self._perpetuals(market.now_ns)

    def update(self, now_ns: int) -> tuple[list[int], list[int]]:
        """List what is due and retire what expired; returns (added rows, retired rows)."""
        retired: IdArray = np.zeros(0, np.int32)
        if now_ns >= self._next_expiry_ns:
            expiry = self.universe.expiry_ns
            retired = np.flatnonzero(self.universe.active & (expiry > 0) & (expiry <= now_ns)).astype(np.int32)
            if len(retired):
                self.universe.retire(retired)
            expiries = listed_expiries(now_ns)
            self._next_expiry_ns = min(expiries)
            self._expiries = expiries
        first = len(self.names)
        # Of what is there at the first call the venue says that it was listed a day ago; of the rest, now.
        listed_ns = now_ns if self._grids else now_ns - _DAY_NS
        for underlying in self.market.underlyings:
            self._list(underlying, now_ns, listed_ns)
        return list(range(first, len(self.names))), retired.tolist()

    def of_currency(self, currency: str, kinds: Iterable[Kind], *, active: bool = True) -> list[int]:
        """Rows of a discovery currency ("BTC", "USDC", "any"), in order of listing."""
        wanted = set(kinds)
        names = self.universe.underlyings
        return [
            row
            for row in np.flatnonzero(self.universe.active == active).tolist()
            if Kind(int(self.universe.kind[row])) in wanted
            and currency in ("any", TERMS[names[self.universe.underlying_id[row]]].currency)
        ]

    def api_row(self, row: int) -> msgspec.Raw:
        """The object of get_instruments as it is now: an expired contract is closed."""
        if self.universe.active[row]:
            return self.rows[row]
        closed = msgspec.json.decode(self.rows[row]) | {"state": "closed", "is_active": False}
        return msgspec.Raw(msgspec.json.encode(closed))

    def terms(self, row: int) -> Terms:
        """Terms of a row's underlying."""
        return TERMS[self.universe[row].underlying]

    def chain(self, underlying: str) -> dict[int, np.ndarray]:
        """Listed strikes of every expiry, `{expiry_ns: strikes}`."""
        ids = self.universe.options(underlying)
        expiry, strike = self.universe.expiry_ns[ids], self.universe.strike[ids]
        return {int(e): np.unique(strike[expiry == e]) for e in np.unique(expiry)}

    def _list(self, underlying: str, now_ns: int, listed_ns: int) -> None:
        terms, spot = TERMS[underlying], self.market.spot(underlying)
        for expiry_ns, period in self._expiries.items():
            # A contract's last day keeps the grid of its second: strikes are not listed an hour before they expire.
            years = max(expiry_ns - now_ns, 2 * _DAY_NS) / NANOSECONDS_PER_YEAR
            vol = UNDERLYINGS[underlying].levels.long_vol
            grid = self._grids.get((underlying, expiry_ns))
            if grid is not None and abs(math.log(spot / grid.spot)) < 0.5 * vol * math.sqrt(years):
                continue
            # Spot has moved half a deviation: the same grid is laid out again around it. Its steps stay those of the first
            # time, else every expiry would fill with ever finer strikes as it comes near.
            years = grid.years if grid is not None else years
            self._grids[underlying, expiry_ns] = _Grid(spot, years)
            density = _DENSITY[period] * terms.density
            strikes = strike_grid(spot, vol, years, density=density, smallest_step=terms.smallest_step)
            if grid is None and period != "day" and terms.settlement is Settlement.INVERSE:
                self._add(underlying, expiry_ns, period, listed_ns, kind=Kind.FUTURE)
            for strike in strikes.tolist():
                for is_call in (True, False):
                    self._add(underlying, expiry_ns, period, listed_ns, strike=strike, is_call=is_call)

    def _perpetuals(self, now_ns: int) -> None:
        for underlying in self.market.underlyings:
            self._add(underlying, 0, "perpetual", now_ns, kind=Kind.PERPETUAL)

    def _add(
        self,
        underlying: str,
        expiry_ns: int,
        period: str,
        listed_ns: int,
        *,
        kind: Kind = Kind.OPTION,
        strike: float = math.nan,
        is_call: bool = False,
    ) -> None:
        terms = TERMS[underlying]
        option = kind is Kind.OPTION
        date = "PERPETUAL" if kind is Kind.PERPETUAL else expiry_code(expiry_ns)
        name = f"{terms.prefix}-{date}" + (f"-{strike_code(strike)}-{'C' if is_call else 'P'}" if option else "")
        if name in self.row_of:
            return
        instrument = Instrument(
            venue="deribit",
            symbol=name,
            kind=kind,
            underlying=underlying,
            settlement=terms.settlement,
            expiry_ns=expiry_ns,
            strike=strike,
            is_call=is_call,
            tick_size=terms.tick if option else terms.future_tick,
            tick_steps=terms.tick_steps if option else (),
            contract_size=terms.contract_size if option else terms.future_contract,
            price_index=terms.index,
        )
        self.universe.add([instrument])
        self.row_of[name] = len(self.names)
        self.names.append(name)
        self.underlyings.append(underlying)
        days = (expiry_ns - self.market.now_ns) / _DAY_NS
        on_index = option and 0 < days < UNDERLYINGS[underlying].index_forward_days and period == "day"
        self.underlying_index.append("index_price" if on_index else f"{terms.prefix}-{date}")
        self.rows.append(_encode(instrument, terms, period, listed_ns, len(self.names)))


def _encode(instrument: Instrument, terms: Terms, period: str, listed_ns: int, number: int) -> msgspec.Raw:
    inverse = terms.settlement is Settlement.INVERSE
    option = instrument.kind is Kind.OPTION
    quote = ("USD" if not option else instrument.underlying) if inverse else "USDC"
    row: dict[str, object] = {
        "state": "open",
        "price_index": terms.index,
        "kind": "option" if option else "future",
        "instrument_name": instrument.symbol,
        "maker_commission": 0.0003 if option else 0.0,
        "taker_commission": 0.0003 if option else 0.0005,
        "instrument_type": "reversed" if inverse else "linear",
        "underlying_type": "crypto",
        "expiration_timestamp": instrument.expiry_ns // 1_000_000 or _PERPETUAL_EXPIRY_MS,
        "instrument_id": 600_000 + number,
        "product_group": terms.maker_tier,
        "creation_timestamp": listed_ns // 1_000_000,
        "is_active": True,
        "contract_size": instrument.contract_size,
        "tick_size": instrument.tick_size,
        "counter_currency": "USD" if inverse else "USDC",
        "min_trade_amount": terms.min_trade_amount if option else instrument.contract_size,
        "block_trade_commission": 0.0003 if option else 0.0001,
        "block_trade_min_trade_amount": 25 if inverse else 75_000,
        "block_trade_tick_size": instrument.tick_size,
        "settlement_currency": instrument.underlying if inverse else "USDC",
        "settlement_period": period,
        "base_currency": instrument.underlying,
        "index_id": 1_000_000 + sorted(TERMS).index(instrument.underlying),
        "quote_currency": quote,
        "tick_size_steps": [{"tick_size": step, "above_price": above} for above, step in instrument.tick_steps],
        "lot_size": 1 if inverse else 10_000,
        "base_currency_uuid": str(uuid.uuid5(uuid.NAMESPACE_DNS, instrument.underlying)),
        "quote_currency_uuid": str(uuid.uuid5(uuid.NAMESPACE_DNS, quote)),
    }
    if option:
        row["strike"] = instrument.strike
        row["option_type"] = "call" if instrument.is_call else "put"
    else:
        row["future_type"] = row["instrument_type"]
        row["max_leverage"] = 50
        row["max_liquidation_commission"] = 0.0075
    return msgspec.Raw(msgspec.json.encode(row))


assert EXPIRY_HOUR == 8, "Deribit expires at 08:00 UTC"
