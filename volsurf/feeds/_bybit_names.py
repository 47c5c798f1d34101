"""Bybit's option names, and which of its option families the name of an underlying stands for."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

from volsurf.errors import ConfigError

SETTLE_COINS = ("USDC", "USDT")
"""Currencies a Bybit option may be settled in. One contract may exist in both, as two instruments with two books."""

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DATE = rf"(?P<day>[1-9][0-9]?)(?P<month>{'|'.join(_MONTHS)})(?P<year>[0-9]{{2}})"
_OPTION = re.compile(rf"(?P<base>[A-Z]+)-{_DATE}-(?P<strike>[0-9]+(?:\.[0-9]+)?)-(?P<type>[CP])(?:-(?P<settle>USDT))?")
_UNDERLYING = re.compile(rf"(?P<base>[A-Z]+)(?:_(?P<settle>{'|'.join(SETTLE_COINS)}))?")

_EXPIRY_HOUR = 8  # UTC


class Family(NamedTuple):
    """All options of one coin that are settled in one currency."""

    base: str
    settle: str

    @property
    def name(self) -> str:
        """`"BTC_USDT"`"""
        return f"{self.base}_{self.settle}"

    @property
    def index_name(self) -> str:
        """Our name of its index, which Bybit's option socket only tells inside the tickers: `"BTC-USDT-INDEX"`."""
        return f"{self.base}-{self.settle}-INDEX"


class OptionName(NamedTuple):
    """What the name of an option says."""

    family: Family
    expiry_ns: int
    strike: float
    is_call: bool


def parse_symbol(name: str) -> OptionName | None:
    """What the name of an option says; None for everything else.

    `BTC-6JAN23-17500-C` is settled in USDC, `XRP-30OCT26-0.4-P-USDT` in USDT. The day has no leading zero and the expiry is
    08:00 UTC of the day named. The strike is told nowhere else: the listing has no field for it.
    """
    match = _OPTION.fullmatch(name)
    if match is None:
        return None
    month = _MONTHS.index(match["month"]) + 1
    try:
        day = datetime(2000 + int(match["year"]), month, int(match["day"]), _EXPIRY_HOUR, tzinfo=UTC)
    except ValueError:  # 31 June
        return None
    strike = float(match["strike"])
    if not 0.0 < strike < float("inf"):
        return None
    family = Family(match["base"], match["settle"] or "USDC")
    return OptionName(family, int(day.timestamp()) * 1_000_000_000, strike, match["type"] == "C")


def families_of(underlying: str) -> list[Family]:
    """The families that the name of an underlying stands for: `"BTC"` for both, `"BTC_USDT"` and `"BTC_USDC"` for one.

    Raises:
        ConfigError: the name has neither form. Whether Bybit lists such a family is only known after discovery.
    """
    match = _UNDERLYING.fullmatch(underlying.strip().upper()) if isinstance(underlying, str) else None
    if match is None:
        raise ConfigError(
            f"an underlying of Bybit is a coin such as 'BTC' or one family such as 'BTC_USDT', was {underlying!r}"
        )
    return [Family(match["base"], settle) for settle in ([match["settle"]] if match["settle"] else SETTLE_COINS)]
