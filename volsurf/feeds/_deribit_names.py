"""Deribit's instrument names, and which of its markets the name of an underlying stands for."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

from volsurf.errors import ConfigError
from volsurf.instruments import Settlement

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DATE = rf"(?P<day>[1-9][0-9]?)(?P<month>{'|'.join(_MONTHS)})(?P<year>[0-9]{{2}})"
_MARKET = r"(?P<base>[A-Z]+)(?:_(?P<quote>USDC|USDT))?"
# Combos (BTC-CS-19MAY26-70000_75000, BTC-FS-26JUN26_PERP) share the prefix of what they are made of and must match neither.
_OPTION = re.compile(rf"{_MARKET}-{_DATE}-(?P<strike>[0-9]+(?:d[0-9]+)?)-(?P<type>[CP])")
_FUTURE = re.compile(rf"{_MARKET}-(?:PERPETUAL|{_DATE})")
_UNDERLYING = re.compile(r"(?P<base>[A-Z]+)(?:_(?P<quote>USDC|USDT))?")

COIN_SETTLED = ("BTC", "ETH")
"""Underlyings with options of their own currency; all others are listed under USDC (SOL's coin options ended in 2022)."""

_EXPIRY_HOUR = 8  # UTC


class OptionName(NamedTuple):
    """What the name of an option says."""

    market: str
    """`"BTC"` for coin-settled, `"SOL_USDC"` for linear."""
    expiry_ns: int
    strike: float
    is_call: bool


def parse_symbol(name: str) -> OptionName | None:
    """What the name of an option says; None for everything else: futures, perpetuals, combos and nonsense.

    `BTC-5JUN26-70000-C`, `XRP_USDC-21SEP26-1d25-P`. The day has no leading zero, `d` is the decimal point, and the expiry is
    08:00 UTC of the day named.
    """
    match = _OPTION.fullmatch(name)
    if match is None:
        return None
    strike = float(match["strike"].replace("d", "."))
    try:
        day = datetime(
            2000 + int(match["year"]),
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            _EXPIRY_HOUR,
            tzinfo=UTC,
        )
    except ValueError:  # 31 June
        return None
    if not 0.0 < strike < float("inf"):
        return None
    return OptionName(_market(match), int(day.timestamp()) * 1_000_000_000, strike, match["type"] == "C")


def future_market(name: str) -> str | None:
    """Market of a dated future or perpetual (`BTC-25DEC26`, `SOL_USDC-PERPETUAL`); None for everything else."""
    match = _FUTURE.fullmatch(name)
    return None if match is None else _market(match)


def _market(match: re.Match[str]) -> str:
    return f"{match['base']}_{match['quote']}" if match["quote"] else match["base"]


class Market(NamedTuple):
    """One underlying with one way of settling it."""

    name: str
    """`"BTC"`, `"SOL_USDC"`"""
    base: str
    quote: str
    """`"USDC"`, `"USDT"`; empty where premiums are paid in the base currency."""

    @property
    def currency(self) -> str:
        """The `currency` under which Deribit lists it."""
        return self.quote or self.base

    @property
    def settlement(self) -> Settlement:
        """In what its premiums are paid."""
        return Settlement.LINEAR if self.quote else Settlement.INVERSE

    @property
    def price_index(self) -> str:
        """Name of the index that settles it, where no listing says so."""
        return f"{self.base}_{self.quote or 'USD'}".lower()


def market_of(underlying: str) -> Market:
    """The market that the name of an underlying stands for.

    `"BTC"` and `"ETH"` are the coin-settled markets; `"SOL_USDC"` (any `X_USDC` or `X_USDT`, also `"BTC_USDC"`) is the linear
    one; any other bare name is linear in USDC, so `"SOL"` is `"SOL_USDC"`. Upper and lower case are the same.

    Raises:
        ConfigError: the name has neither form. Whether Deribit lists such a market is only known after discovery.
    """
    match = _UNDERLYING.fullmatch(underlying.strip().upper()) if isinstance(underlying, str) else None
    if match is None:
        raise ConfigError(
            f"an underlying of Deribit is a currency such as 'BTC' or a linear market such as 'SOL_USDC', was {underlying!r}"
        )
    base, quote = match["base"], match["quote"]
    if quote is None and base not in COIN_SETTLED:
        quote = "USDC"
    return Market(f"{base}_{quote}" if quote else base, base, quote or "")
