"""What the simulated Deribit lists: names, ticks, strikes and the rows of `public/get_instruments`."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import numpy as np

from volsurf.instruments import Instrument, Kind, Settlement
from volsurf.sim.listing import EXPIRY_HOUR, Listing, from_ns
from volsurf.sim.market import UNDERLYINGS, Market
from volsurf.sim.profiles import PROFILES, Family, VenueProfile

_DAY_NS = 86_400_000_000_000
_PERPETUAL_EXPIRY_MS = 32_503_708_800_000
"""Year 3000: what the venue writes for a contract without expiry."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How Deribit speaks of one underlying; ticks, lots and strikes are its profile's."""

    prefix: str
    currency: str
    """Under which it is discovered and its trades and lifecycle are published."""
    index: str
    min_trade_amount: float
    digits: int
    """Decimals of index and forward."""
    maker_tier: str


TERMS: dict[str, Terms] = {
    "BTC": Terms("BTC", "BTC", "btc_usd", 0.1, 2, "BTC"),
    "ETH": Terms("ETH", "ETH", "eth_usd", 1.0, 2, "ETH"),
    "SOL": Terms("SOL_USDC", "USDC", "sol_usdc", 10.0, 4, "TIER_2"),
    "XRP": Terms("XRP_USDC", "USDC", "xrp_usdc", 1000.0, 4, "TIER_2"),
}


def expiry_code(expiry_ns: int) -> str:
    """`25DEC26`: no leading zero of the day."""
    moment = from_ns(expiry_ns)
    return f"{moment.day}{moment:%b%y}".upper()


def strike_code(strike: float) -> str:
    """`77000`, `142d5`: the decimal point is a d."""
    return np.format_float_positional(strike, trim="-").replace(".", "d")


class DeribitListing(Listing):
    """What Deribit lists. Beside every row stand its encoded object of get_instruments (`rows`) and its `underlying_index`.

    Args:
        profile: None takes the venue's own terms, and a USDC for a dollar.
    """

    def __init__(self, market: Market, profile: VenueProfile | None = None) -> None:
        self.rows: list[msgspec.Raw] = []
        self.underlyings: list[str] = []
        self.underlying_index: list[str] = []
        self._currencies = {} if profile is None else {f.underlying: f.quote_currency for f in profile.families}
        terms = profile or PROFILES["deribit"]
        super().__init__(market, "deribit", terms.families, terms.expiries)

    def spot(self, underlying: str) -> float:
        """The index of an underlying, rounded as the venue does."""
        spot = self.market.spot(underlying, self._currencies.get(underlying, "USD"))
        return round(spot, TERMS[underlying].digits)

    def symbol(self, family: Family, kind: Kind, expiry_ns: int, strike: float, is_call: bool) -> str:
        """`BTC-25DEC26-77000-C`, `SOL_USDC-PERPETUAL`."""
        prefix = TERMS[family.underlying].prefix
        if kind is Kind.PERPETUAL:
            return f"{prefix}-PERPETUAL"
        option = f"-{strike_code(strike)}-{'C' if is_call else 'P'}" if kind is Kind.OPTION else ""
        return f"{prefix}-{expiry_code(expiry_ns)}{option}"

    def price_index(self, family: Family) -> str:
        """`btc_usd`."""
        return TERMS[family.underlying].index

    def added(self, row: int, instrument: Instrument, family: Family, period: str, listed_ns: int) -> None:
        """Encode what get_instruments says of it."""
        terms, option = TERMS[family.underlying], instrument.kind is Kind.OPTION
        self.underlyings.append(family.underlying)
        days = (instrument.expiry_ns - self.market.now_ns) / _DAY_NS
        on_index = option and 0 < days < UNDERLYINGS[family.underlying].index_forward_days and period == "day"
        date = "PERPETUAL" if instrument.kind is Kind.PERPETUAL else expiry_code(instrument.expiry_ns)
        self.underlying_index.append("index_price" if on_index else f"{terms.prefix}-{date}")
        self.rows.append(_encode(instrument, terms, period, listed_ns, row + 1))

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


def _encode(instrument: Instrument, terms: Terms, period: str, listed_ns: int, number: int) -> msgspec.Raw:
    inverse = instrument.settlement is Settlement.INVERSE
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
