"""What the simulated Bybit lists: names and the rows of `instruments-info`."""

from __future__ import annotations

import msgspec

from volsurf.instruments import Instrument, Kind
from volsurf.sim.listing import Listing, from_ns
from volsurf.sim.market import Market
from volsurf.sim.profiles import PROFILES, Family, VenueProfile

DIGITS = {"BTC": 2, "ETH": 2, "SOL": 4, "XRP": 5}
"""Decimals of an index."""
_FIRST_ID = 394_000


def text(value: float, digits: int = 8) -> str:
    """A number as Bybit writes it: `"3475"`, `"0.5421"`, `"0"`."""
    written = f"{value:.{digits}f}"
    if "." in written:
        written = written.rstrip("0").rstrip(".")
    return "0" if written == "-0" else written


def option_name(family: Family, expiry_ns: int, strike: float, is_call: bool) -> str:
    """`BTC-6JAN23-17500-C` in USDC, `XRP-30OCT26-0.4-P-USDT` in USDT: no leading zero of the day."""
    day = from_ns(expiry_ns)
    settle = "-USDT" if family.quote_currency == "USDT" else ""
    return f"{family.underlying}-{f'{day.day}{day:%b%y}'.upper()}-{text(strike)}-{'C' if is_call else 'P'}{settle}"


class BybitListing(Listing):
    """What Bybit lists. Beside every row stands its encoded object of `instruments-info` (`rows`)."""

    def __init__(self, market: Market, profile: VenueProfile | None = None) -> None:
        self.rows: list[msgspec.Raw] = []
        terms = profile or PROFILES["bybit"]
        super().__init__(market, "bybit", terms.families, terms.expiries)

    def symbol(self, family: Family, kind: Kind, expiry_ns: int, strike: float, is_call: bool) -> str:
        """Name of an option; nothing else is listed."""
        del kind
        return option_name(family, expiry_ns, strike, is_call)

    def added(self, row: int, instrument: Instrument, family: Family, period: str, listed_ns: int) -> None:
        """Encode what `instruments-info` says of it."""
        del period
        base, settle, symbol = family.underlying, family.quote_currency, instrument.symbol
        tick = text(family.tick)
        highest = text(round(12.0 * self.market.spot(base) / family.tick) * family.tick)
        lot = text(family.lot)
        parts = symbol.split("-")
        self.rows.append(
            msgspec.Raw(
                msgspec.json.encode(
                    {
                        "symbolId": _FIRST_ID + row,
                        "symbol": symbol,
                        "status": "Trading",
                        "baseCoin": base,
                        "quoteCoin": settle,
                        "settleCoin": settle,
                        "optionsType": "Call" if instrument.is_call else "Put",
                        "launchTime": str(listed_ns // 1_000_000),
                        "deliveryTime": str(instrument.expiry_ns // 1_000_000),
                        "deliveryFeeRate": "0.00015",
                        "priceFilter": {"minPrice": tick, "maxPrice": highest, "tickSize": tick},
                        "lotSizeFilter": {"maxOrderQty": text(50_000 * family.lot), "minOrderQty": lot, "qtyStep": lot},
                        "displayName": "-".join([f"{base}{settle}", *parts[1:4]]),
                    }
                )
            )
        )

    def of_coin(self, coin: str) -> list[int]:
        """Rows of a coin's options that are traded, in order of their ids."""
        active = self.universe.active
        return [row for row, family in enumerate(self.family) if family.underlying == coin and active[row]]

    def spot(self, family: Family) -> float:
        """The index of a family, rounded as the venue does."""
        return round(self.market.spot(family.underlying, family.quote_currency), DIGITS[family.underlying])
