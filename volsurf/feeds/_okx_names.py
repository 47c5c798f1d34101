"""OKX's instrument names and option families, and which of them the name of an underlying stands for."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

from volsurf.errors import ConfigError

_FAMILY = re.compile(r"(?P<base>[A-Z0-9]+)-(?P<quote>[A-Z]+(?:_[A-Z]+)?)")
_DATE = re.compile(r"[0-9]{6}")
_STRIKE = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_UNDERLYING = re.compile(r"(?P<base>[A-Z0-9]+)(?:[-_](?P<quote>USD|USD_UM|USDC|USDT))?")

EXPIRY_HOUR = 8  # UTC
PERPETUAL = "SWAP"


class Family(NamedTuple):
    """What OKX calls an instrument family: one underlying with one way of margining it."""

    base: str
    quote: str
    """`"USD"` is settled in coin, `"USD_UM"` in dollar stablecoins, `"USDC"` and `"USDT"` in those."""

    @property
    def name(self) -> str:
        """`"BTC-USD"`, `"BTC-USD_UM"`"""
        return f"{self.base}-{self.quote}"

    @property
    def currency(self) -> str:
        """Of strikes, forwards and the index: `"USD"` for both `USD` and `USD_UM`."""
        return self.quote.partition("_")[0]

    @property
    def uly(self) -> str:
        """The index it hangs on, and the `uly` it is listed under: `"BTC-USD"` for both `BTC-USD` and `BTC-USD_UM`."""
        return f"{self.base}-{self.currency}"


class OptionName(NamedTuple):
    """What the name of an option says."""

    family: Family
    expiry_ns: int
    strike: float
    is_call: bool


class FutureName(NamedTuple):
    """What the name of a dated future or of a perpetual ("swap") says."""

    family: Family
    expiry_ns: int
    """0 for a perpetual."""


class Wanted(NamedTuple):
    """What the name of an underlying asks for: one family, or every family of a coin."""

    base: str
    quote: str
    """Empty for every family."""

    @property
    def uly(self) -> str:
        """Under which it is listed, as far as can be known before the venue was asked."""
        return Family(self.base, self.quote or "USD").uly

    @property
    def name(self) -> str:
        """`"BTC"`, `"BTC_USD_UM"`: as the caller would write it."""
        return f"{self.base}_{self.quote}" if self.quote else self.base

    def holds(self, family: Family) -> bool:
        """Whether a family is meant."""
        return family.base == self.base and self.quote in ("", family.quote)


def parse_family(name: str) -> Family | None:
    """The family of a name such as `BTC-USD_UM`; None for everything else."""
    match = _FAMILY.fullmatch(name)
    return None if match is None else Family(match["base"], match["quote"])


def parse_symbol(name: str) -> OptionName | None:
    """What the name of an option says; None for everything else.

    `BTC-USD-260428-72000-C`, `BTC-USD_UM-260428-72000-C`. It is read from the right: what stands to the left is the family, of
    whatever form. The expiry is 08:00 UTC of the day named.
    """
    parts = name.rsplit("-", 3)
    if len(parts) != 4 or parts[3] not in ("C", "P") or _STRIKE.fullmatch(parts[2]) is None:
        return None
    family, expiry_ns, strike = parse_family(parts[0]), _expiry(parts[1]), float(parts[2])
    if family is None or expiry_ns is None or not 0.0 < strike < float("inf"):
        return None
    return OptionName(family, expiry_ns, strike, parts[3] == "C")


def parse_future(name: str) -> FutureName | None:
    """What the name of a future or swap says (`BTC-USD-260626`, `BTC-USD_UM-SWAP`); None for everything else."""
    head, _, tail = name.rpartition("-")
    family = parse_family(head)
    expiry_ns = 0 if tail == PERPETUAL else _expiry(tail)
    return None if family is None or expiry_ns is None else FutureName(family, expiry_ns)


def wanted_of(underlying: str) -> Wanted:
    """What the name of an underlying asks for.

    `"BTC"` is every option family of the coin; `"BTC_USD"` the coin-settled one, `"BTC_USD_UM"`, `"BTC_USDC"`, `"BTC_USDT"` the
    others. The venue's own spelling (`"BTC-USD_UM"`) is understood too. Upper and lower case are the same.

    Raises:
        ConfigError: the name has no such form. Whether OKX lists such options is only known after discovery.
    """
    match = _UNDERLYING.fullmatch(underlying.strip().upper()) if isinstance(underlying, str) else None
    if match is None:
        raise ConfigError(
            "an underlying of OKX is a coin such as 'BTC' or one option family of it such as 'BTC_USD' or 'BTC_USD_UM', "
            f"was {underlying!r}"
        )
    return Wanted(match["base"], match["quote"] or "")


def _expiry(yymmdd: str) -> int | None:
    if _DATE.fullmatch(yymmdd) is None:
        return None
    year, month, day = int(yymmdd[:2]), int(yymmdd[2:4]), int(yymmdd[4:])
    try:
        moment = datetime(2000 + year, month, day, EXPIRY_HOUR, tzinfo=UTC)
    except ValueError:  # 31 June
        return None
    return int(moment.timestamp()) * 1_000_000_000
