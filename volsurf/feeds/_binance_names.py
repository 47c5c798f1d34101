"""Binance's option and stream names, and which of its option families the name of an underlying stands for."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

from volsurf.errors import ConfigError

_OPTION = re.compile(
    r"(?P<base>[A-Z0-9]{1,20})-(?P<date>[0-9]{6})-(?P<strike>[0-9]{1,15}(?:\.[0-9]{1,12})?)-(?P<type>[CP])"
)
_UNDERLYING = re.compile(r"(?P<base>[A-Z0-9]{1,20})(?:_(?P<quote>USDT|USDC|USD|FDUSD|USD1|USDE))?")
_EXPIRY_HOUR = 8  # UTC

INDEX_STREAM = "!index@arr"
LISTINGS_STREAM = "!optionSymbol"
MARK, TICKER, TRADES, DEPTH = "optionMarkPrice", "bookTicker", "optionTrade", "depth"


class OptionName(NamedTuple):
    """What the name of an option says. The currency of the strike is not part of it."""

    base: str
    expiry_ns: int
    strike: float
    is_call: bool


def parse_symbol(name: str) -> OptionName | None:
    """What `BTC-260925-86000-C` or `XRP-251219-2.05-P` says; None for what is no option's name.

    The date is year, month, day, and the expiry 08:00 UTC of it.
    """
    match = _OPTION.fullmatch(name)
    if match is None:
        return None
    date, strike = match["date"], float(match["strike"])
    try:
        day = datetime(2000 + int(date[:2]), int(date[2:4]), int(date[4:]), _EXPIRY_HOUR, tzinfo=UTC)
    except ValueError:  # 31 June
        return None
    if not strike > 0:
        return None
    return OptionName(match["base"], int(day.timestamp()) * 1_000_000_000, strike, match["type"] == "C")


class Family(NamedTuple):
    """The options of one coin, settled in one currency or in whichever is listed."""

    base: str
    quote: str
    """`"USDT"`; empty for every currency the venue lists."""

    @property
    def name(self) -> str:
        """As it was asked for: `"BTC"`, `"BTC_USDT"`."""
        return f"{self.base}_{self.quote}" if self.quote else self.base

    def has(self, base: str, quote: str) -> bool:
        """Whether options on `base` settled in `quote` belong to it."""
        return self.base == base and self.quote in ("", quote)


def family_of(underlying: str) -> Family:
    """The family that the name of an underlying stands for: `"BTC"` is every one of that coin, `"BTC_USDT"` that one.

    Raises:
        ConfigError: the name has neither form. Whether Binance lists it is only known after discovery.
    """
    match = _UNDERLYING.fullmatch(underlying.strip().upper()) if isinstance(underlying, str) else None
    if match is None:
        raise ConfigError(
            f"an underlying of Binance is a coin such as 'BTC', or one family of it such as 'BTC_USDT', was {underlying!r}"
        )
    return Family(match["base"], match["quote"] or "")


def stream(symbol: str, what: str) -> str:
    """Name of a stream: the symbol in lower case, what follows it as it is. In payloads symbols are in upper case."""
    return f"{symbol.lower()}@{what}"


UNUSED = ("optionTicker", "kline", "openInterest", "optionOpenInterest")
"""Streams of 2026 that say nothing a surface needs, or say it more slowly."""
RETIRED = ("ticker", "trade", "markPrice", "index", "depth", "openInterest", "kline")
"""Streams of the API that ended in December 2025; their symbols were in upper case."""
_OF_EVENT = {
    "bookTicker": TICKER,
    "depthUpdate": DEPTH,
    "trade": TRADES,
    "markPrice": MARK,
    "indexPrice": "index",
    "optionSymbol": "listings",
    "24hrTicker": "optionTicker",
    "kline": "kline",
    "openInterest": "openInterest",
}


def kind_of(name: str, event: str) -> str:
    """What a message is: one of the kinds used, `unused.…`, `retired.…`, or "" where it is none of them.

    Args:
        name: of the stream, on a combined one. event: `e` of the payload, where there is no such name.
    """
    if name in (INDEX_STREAM, LISTINGS_STREAM):
        return "index" if name == INDEX_STREAM else "listings"
    if not name:
        kind = _OF_EVENT.get(event, "")
        if not kind:
            return f"retired.{event}" if event in ("depth", "index") else ""
    else:
        symbol, _, what = name.partition("@")
        kind = what.partition("@")[0]
        for family in ("kline", DEPTH):
            if kind.startswith(family):
                kind = family
        if (
            symbol != symbol.lower()
            or kind in ("ticker", "trade", "markPrice", "index")
            or what.startswith("depth100@")
        ):
            return f"retired.{kind if kind in RETIRED else 'other'}"
    if kind in UNUSED:
        return f"unused.{kind}"
    return kind if kind in (MARK, TICKER, TRADES, DEPTH, "index", "listings") else ""
