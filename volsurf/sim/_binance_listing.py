"""What the simulated Binance lists: names and the rows of `exchangeInfo`."""

from __future__ import annotations

import numpy as np
from msgspec import Raw
from msgspec.json import encode

from volsurf.instruments import Instrument, Kind
from volsurf.sim.listing import Listing, from_ns
from volsurf.sim.market import Market
from volsurf.sim.profiles import PROFILES, Family, VenueProfile

DECIMALS = {"BTC": 3}
"""Of a price per contract."""
DECIMALS_ELSE = 4
INDEX_DECIMALS, SIZE_DECIMALS = 8, 2


def option_name(base: str, expiry_ns: int, strike: float, is_call: bool) -> str:
    """`BTC-260925-86000-C`, `XRP-251219-2.05-P`"""
    code = np.format_float_positional(strike, trim="-")
    return f"{base}-{from_ns(expiry_ns):%y%m%d}-{code}-{'C' if is_call else 'P'}"


class BinanceListing(Listing):
    """What Binance lists. Beside every row stand its encoded object of `exchangeInfo` and what `!optionSymbol` says of it.

    Attributes:
        rows: objects of `exchangeInfo`. announcements: objects of `!optionSymbol`, without their time.
    """

    def __init__(self, market: Market, profile: VenueProfile | None = None) -> None:
        self.rows: list[Raw] = []
        self.announcements: list[dict[str, object]] = []
        terms = profile or PROFILES["binance"]
        super().__init__(market, "binance", terms.families, terms.expiries)

    @property
    def pairs(self) -> dict[str, Family]:
        """Underlying pair → what is listed on it."""
        return {self.price_index(family): family for family in self.families}

    def symbol(self, family: Family, kind: Kind, expiry_ns: int, strike: float, is_call: bool) -> str:
        """Name of an option; nothing else is listed."""
        del kind
        return option_name(family.underlying, expiry_ns, strike, is_call)

    def price_index(self, family: Family) -> str:
        """`BTCUSDT`"""
        return family.underlying + family.quote_currency

    def spot(self, family: Family) -> float:
        """The index of a pair, rounded as the venue does."""
        return round(self.market.spot(family.underlying, family.quote_currency), INDEX_DECIMALS)

    def added(self, row: int, instrument: Instrument, family: Family, period: str, listed_ns: int) -> None:
        """Encode what `exchangeInfo` and the announcement say of it."""
        del period
        unit, decimals = instrument.contract_size, DECIMALS.get(family.underlying, DECIMALS_ELSE)
        tick, lot = family.tick * unit, family.lot / unit
        side, pair = "CALL" if instrument.is_call else "PUT", instrument.price_index
        highest = round(12.0 * self.spot(family) * unit / tick) * tick
        self.rows.append(
            Raw(
                encode(
                    {
                        "expiryDate": instrument.expiry_ns // 1_000_000,
                        "filters": [
                            {
                                "filterType": "PRICE_FILTER",
                                "minPrice": f"{tick:.{decimals}f}",
                                "maxPrice": f"{highest:.{decimals}f}",
                                "tickSize": f"{tick:.{decimals}f}",
                            },
                            {"filterType": "LOT_SIZE", "minQty": f"{lot:g}", "maxQty": "10000", "stepSize": f"{lot:g}"},
                        ],
                        "symbol": instrument.symbol,
                        "side": side,
                        "strikePrice": f"{instrument.strike:.8f}",
                        "underlying": pair,
                        "unit": int(unit) if unit == int(unit) else unit,
                        "liquidationFeeRate": "0.0019",
                        "minQty": f"{lot:g}",
                        "maxQty": "10000",
                        "initialMargin": "0.15",
                        "maintenanceMargin": "0.075",
                        "minInitialMargin": "0.1",
                        "minMaintenanceMargin": "0.05",
                        "priceScale": decimals,
                        "quantityScale": SIZE_DECIMALS,
                        "quoteAsset": family.quote_currency,
                        "status": "TRADING",
                    }
                )
            )
        )
        self.announcements.append(
            {
                "e": "optionSymbol",
                "s": instrument.symbol,
                "ps": pair,
                "qa": family.quote_currency,
                "d": side,
                "sp": f"{instrument.strike:g}",
                "dt": instrument.expiry_ns // 1_000_000,
                "u": int(unit) if unit == int(unit) else unit,
                "ot": listed_ns // 1_000_000,
                "cs": "TRADING",
            }
        )
