"""Which venues can be simulated, and a server of one by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from volsurf.errors import ConfigError
from volsurf.instruments import Settlement
from volsurf.sim.market import Market
from volsurf.sim.profiles import Family, VenueProfile
from volsurf.sim.server import ExchangeServer

SIMULATED = {
    "deribit": "SimulatedDeribit",
    "okx": "SimulatedOkx",
    "bybit": "SimulatedBybit",
    "binance": "SimulatedBinance",
}
"""Class of each venue's server; its module is `volsurf.sim.<name>`."""


def family_name(family: Family) -> str:
    """What a family is called among venues: `BTC_USD`, `BTC_USD_UM`, `BTC_USDT`."""
    linear_dollars = family.quote_currency == "USD" and family.settlement is Settlement.LINEAR
    return f"{family.underlying}_{family.quote_currency}{'_UM' if linear_dollars else ''}"


def selected(profile: VenueProfile, names: Sequence[str]) -> tuple[VenueProfile, list[str]]:
    """The profile with the option families asked for and no others, and which names the venue does not list.

    Args:
        names: `"BTC"` is every family of that coin, `"BTC_USDT"` one of them.
    """
    families = [f for f in profile.families if f.underlying in names or family_name(f) in names]
    known = {f.underlying for f in families} | {family_name(f) for f in families}
    return replace(profile, families=tuple(families)), [name for name in names if name not in known]


def make_server(venue: str, market: Market, **options: Any) -> ExchangeServer:
    """A server of one venue, not yet listening.

    Args:
        options: `host`, `port`, `rate`, `time_scale`, `profile`, `origin_ns`, `clock` and what else the venue's class takes.

    Raises:
        ConfigError: no such venue.
    """
    if venue not in SIMULATED:
        raise ConfigError(f"venues that can be simulated are {', '.join(SIMULATED)}, was {venue!r}")
    module = importlib.import_module(f"volsurf.sim.{venue}")
    server: ExchangeServer = getattr(module, SIMULATED[venue])(market, **options)
    return server
